"""Other readers of stem sets: Hugging Face's datasets and webdataset, offline, and the page of the columns."""

import gc
import importlib.util
import io
import json
import tarfile

import pyarrow.parquet
import pytest
import soundfile

from sepnet.stem_sets.columns import clip_schema, failed_schema, names_beside_audio
from sepnet.stem_sets.stem_set import StemSet
from tests.conftest import REPOSITORY
from tests.sepnet.stem_sets.clips import CAPTION, settings, write


@pytest.fixture(scope="module", params=["flac", "opus"])
def written(request, tmp_path_factory):
    """The folder of a set, and the rows of its manifest."""
    folder = tmp_path_factory.mktemp("written") / "set"
    write(StemSet.create_or_continue(str(folder), settings(audio_format=request.param)))
    return folder, pyarrow.parquet.read_table(folder / "manifest.parquet").to_pylist()


# Both packages leave shards open.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture(autouse=True)
def shards_are_closed():
    """Closes what packages leave open while their warnings are still let through."""
    yield
    gc.collect()


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    """Hugging Face's package with a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path / "huggingface"))
        patch.setenv("HF_DATASETS_OFFLINE", "1")
        package = importlib.import_module("datasets")
    # It may have been imported before.
    monkeypatch.setattr(package.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    if not importlib.util.find_spec("torchcodec"):
        # What it makes of files in memory is what they are, but it imports that and PyTorch, of gigabytes, before.
        monkeypatch.setattr(package.Audio, "encode_example", lambda self, value: value)
    return package


@pytest.mark.slow
def test_datasets_reads_the_shards(written, datasets):
    folder, rows = written
    suffix = rows[0]["member"].rpartition(".")[2]
    data_files = str(folder / "data" / "*.tar")
    found = datasets.load_dataset("webdataset", data_files=data_files, split="train")
    assert found.features[suffix] == datasets.Audio()
    found = found.cast_column(suffix, datasets.Audio(decode=False))
    assert len(found) == len(rows) == 15
    for sample, row in zip(found, rows, strict=True):
        assert sample["txt"] == row["caption"]
        assert sample["json"] == {name: row[name] for name in names_beside_audio()}
        info = soundfile.info(io.BytesIO(sample[suffix]["bytes"]))
        assert (info.samplerate, info.channels) == (row["sample_rate"], row["num_channels"])


@pytest.mark.slow
def test_datasets_reads_the_manifest(written, datasets):
    folder, rows = written
    found = datasets.load_dataset("parquet", data_files=str(folder / "manifest.parquet"), split="train")
    assert found.column_names == clip_schema().names
    assert list(found) == rows
    failed = datasets.load_dataset("parquet", data_files=str(folder / "failed.parquet"), split="train")
    assert failed["reason"][:] == ["no audio in it"] * 3


@pytest.mark.slow
def test_webdataset_reads_the_shards(written):
    import webdataset

    folder, rows = written
    suffix = rows[0]["member"].rpartition(".")[2]
    shards = sorted(str(path) for path in (folder / "data").iterdir())
    samples = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False))
    assert len(samples) == len(rows)
    for sample, row in zip(samples, rows, strict=True):
        assert f"{sample['__key__']}.{suffix}" == row["member"]
        assert sample["txt"].decode() == f"{CAPTION}, vocals"
        assert json.loads(sample["json"])["id"] == row["id"]
        assert soundfile.info(io.BytesIO(sample[suffix])).channels == row["num_channels"]


def test_shards_tell_nothing_of_when_and_by_whom(written):
    for path in (written[0] / "data").iterdir():
        with tarfile.open(path) as tar:
            assert {(member.mtime, member.uid, member.gid, member.uname) for member in tar} == {(0, 0, 0, "")}


@pytest.mark.parametrize("schema", [clip_schema, failed_schema])
def test_the_page_tells_of_every_column(schema):
    lines, is_clip = [], schema is clip_schema
    for field in schema():
        told = {key.decode(): value.decode() for key, value in field.metadata.items()}
        beside = "yes" if field.name in names_beside_audio() else ""
        kind = f"{field.type}, or null" if field.nullable else f"{field.type}"
        cells = [f"`{field.name}`", kind.replace("item: ", ""), told["unit"], told["description"]]
        lines.append("".join(f"| {cell} " if cell else "| " for cell in [*cells, *[beside] * is_clip]) + "|")
    assert "\n".join(lines) in (REPOSITORY / "docs" / "stem_sets.md").read_text()
