"""Imported networks against the programs that published them, which made `tests/data` (see `benchmarks/originals`)."""

import json
import os
import pathlib
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import soundfile

from pipelines.audio.reading import read_streams
from pipelines.errors import UserError
from sepnet import plan, pretrained
from sepnet.export.contract import CONTRACT_FILE, read_contract
from sepnet.importers.catalog import read_catalog
from sepnet.separation.separator import Separator

DATA = pathlib.Path(__file__).parents[2] / "data"
# Networks whose STFT steps by a part of their window that is whole, or not, as published networks' does.
FOLDERS = {
    "mdx-net-vocals": "mdx-net-6144",
    "uvr-kim-vocal-2": "mdx-net-7680",
    "uvr-voc-ft": "mdx-net-checkpoint",
    "mdx23c-musdb": "mdx23c",
}
# How the small networks there differ from the published ones of the same name.
SMALL_WAVE_U_NET = {"model": {"depth": 4, "base_filters": 3}}
SMALL = {
    **{
        f"wave-u-net-{name}": ({"files": ["*.index", "*.data-*"]}, SMALL_WAVE_U_NET)
        for name in ("m1", "m4", "m5", "m6", "m5-highsr")
    },
    "mdx-net-vocals": ({}, {"n_fft": 384, "hop": 64}),
    "uvr-kim-vocal-2": ({}, {"n_fft": 480, "hop": 64, "compensate": 1.035}),
    "uvr-voc-ft": ({}, {"n_fft": 384, "hop": 64, "compensate": 1.0, "zero_lowest": 0}),
    "mdx23c-musdb": ({}, {"n_fft": 384, "hop": 64, "block_samples": 1984}),
    **{f"spleeter-{number}stems": ({}, {"filters": [2, 3, 4, 5, 6, 7]}) for number in (2, 4, 5)},
}


@pytest.fixture(scope="module")
def install(tmp_path_factory):
    """Imports a small network by the command and returns the folder of its version; each once."""
    known = {}

    def run(name, weights=None):
        if name not in known or weights:
            entry, options = SMALL[name]
            catalog = read_catalog()
            changed = {**catalog[name], **entry, "options": {**catalog[name]["options"], **options}}
            folder = tmp_path_factory.mktemp("saved_models")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(pretrained, "read_catalog", lambda: {**catalog, name: changed})
                place = DATA / FOLDERS.get(name, name)
                archive = place / "weights.tar.gz"
                place = weights or (archive if archive.exists() else place)
                pretrained.main([name, "--weights", str(place), "--saved-models", str(folder)])
            if weights:
                return folder / name / "1"
            known[name] = folder / name / "1"
        return known[name]

    return run


def stretches(name):
    """The mixture, its rate, and for each source stretches of the original's stem with the places where they begin."""
    if name == "mdx23c-musdb":
        mixture, rate = soundfile.read(DATA / "mdx23c" / "chunk.flac", dtype="float32")
        # The program's window is zero at the end of a song, and so is what it gives there.
        with np.load(DATA / "mdx23c" / "chunk.npz") as file:
            return mixture, rate, {source: [(0, file[source][:-1])] for source in file}
    if name in FOLDERS:
        mixture, rate = soundfile.read(DATA / FOLDERS[name] / "short.flac", dtype="float32", always_2d=True)
        with np.load(DATA / FOLDERS[name] / "short.npz") as file:
            vocals = file["vocals"]
        return mixture, rate, {"vocals": [(0, vocals)], "accompaniment": [(0, mixture - vocals)]}
    mixture, rate = soundfile.read(DATA / name / "mixture.flac", dtype="float32", always_2d=True)
    with np.load(DATA / name / "stems.npz") as file:
        stems = {key.removeprefix("whole_"): file[key] for key in file if key != "places"}
        return mixture, rate, {source: list(zip(file["places"], stem, strict=True)) for source, stem in stems.items()}


# Others have the same parts, but for the softmax of five stems, which takes long.
SLOW = ("uvr-kim-vocal-2", "uvr-voc-ft", "wave-u-net-m5", "spleeter-4stems", "spleeter-5stems")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in SMALL])
def test_stems_are_those_of_the_original(install, name):
    version = install(name)
    mixture, rate, expected = stretches(name)
    separator = Separator(version)
    assert set(separator.sources) == set(expected) and separator.sample_rate == rate
    assert separator.is_exact == (name != "mdx23c-musdb")
    # A small block, so that the song is put together from several.
    for stems in (separator(mixture, rate), Separator(version, block_seconds=0.1)(mixture, rate)):
        for source, pieces in expected.items():
            for place, piece in pieces:
                found = stems[source][place : place + len(piece)]
                np.testing.assert_allclose(found, piece.reshape(found.shape), rtol=0, atol=1e-4)
                assert np.abs(piece).max() > 0.01


def test_stretches_that_overlap_give_what_the_original_gives(install):
    """MDX23C sees all of a stretch, so its program's way through a song is not this project's: four times around."""
    separator = Separator(install("mdx23c-musdb"))
    mixture, rate = soundfile.read(DATA / "mdx23c" / "song.flac", dtype="float32")
    size, step = 1984, 1984 // 4
    padded = np.pad(mixture, [(size - step,) * 2, (0, 0)], mode="reflect")
    window = np.interp(np.arange(size), [0, size // 10 - 1, size - size // 10, size - 1], [0, 1, 1, 0])[:, None]
    with np.load(DATA / "mdx23c" / "song.npz") as file:
        originals = {source: file[source] for source in file}
    sums, weights = {source: np.zeros(padded.shape) for source in originals}, np.zeros((len(padded), 1))
    # Those around the ends of the padded song reach no sample of the song itself.
    for begin in range(0, len(padded) - size + 1, step):
        weights[begin : begin + size] += window
        for source, stem in separator.model(padded[None, begin : begin + size]).items():
            sums[source][begin : begin + size] += window * stem[0]
    inside = slice(size, len(mixture) - size)
    for source, original in originals.items():
        overlapped = (sums[source] / np.maximum(weights, 1e-9))[size - step :][: len(mixture)]
        np.testing.assert_allclose(overlapped[inside], original[inside], rtol=0, atol=1e-4)
    # Neighbours that fade into each other are another way through the same stretches, not another network.
    stems = separator(mixture, rate)
    for source, original in originals.items():
        assert 0.01 < np.std(stems[source] - original) / np.std(original) < 1


def test_mdx_net_differs_where_a_song_is_longer_than_a_stretch(install):
    """Each of the program's stretches ends in zeros, and the network sees more than a stretch."""
    mixture, rate = soundfile.read(DATA / "mdx-net-6144" / "long.flac", dtype="float32")
    found = Separator(install("mdx-net-vocals"))(mixture, rate)["vocals"]
    with np.load(DATA / "mdx-net-6144" / "long.npz") as file:
        original = file["vocals"]
    # With random weights it differs by as much as there is.
    assert np.std(found - original) > 0.01 * np.std(original)
    assert np.corrcoef(found.ravel(), original.ravel())[0, 1] > 0.3


@pytest.mark.slow
def test_spleeter_differs_where_two_stretches_meet(install, real_track):
    """The program's stretches of 512 frames know nothing of each other."""
    separator = Separator(install("spleeter-2stems"))
    song, rate = np.concatenate([block[0] for block in read_streams(real_track)]), separator.sample_rate
    mixture = np.tile(song, (4, 1))[: 2 * 512 * 1024]
    found, seam = separator(mixture, rate), 512 * 1024
    parts = [separator.model(part[None]) for part in (mixture[:seam], mixture[seam:])]
    for source, stem in found.items():
        difference = np.abs(stem - np.concatenate([part[source][0] for part in parts])).max(axis=1)
        by_second = [difference[place : place + rate].max() for place in range(0, len(difference), rate)]
        assert by_second[seam // rate] > 1e-3 and by_second[0] < 1e-5 > by_second[-1]


def test_the_contract_says_where_weights_are_from(install):
    contract = read_contract(install("wave-u-net-m4"))
    entry = read_catalog()["wave-u-net-m4"]
    assert contract["published"] == {
        "name": "wave-u-net-m4",
        **{key: entry[key] for key in ("reference", "licence", "url")},
    }
    assert contract["parts"] == {"accompaniment": ["drums", "bass", "other"], "vocals": ["vocals"]}


def test_the_plan_has_a_row_for_each(install, capsys, tmp_path):
    folders = [install("wave-u-net-m4").parent, install("mdx23c-musdb").parent]
    capsys.readouterr()
    plan.main(["--models", *map(str, folders), "--json"])
    costs = {name: contract["costs"] for name, contract in json.loads(capsys.readouterr().out).items()}
    kernels = np.prod([15, 2, 3]) + 3 + np.prod([15, 3, 6]) + 6
    assert costs["wave-u-net-m4"]["parameters"] > kernels and costs["wave-u-net-m4"]["flops_per_second"] > 1e6
    assert costs["mdx23c-musdb"]["receptive_field_samples"] is None
    plan.main(["--models", *map(str, folders)])
    assert "mdx23c-musdb" in capsys.readouterr().out
    shutil.copytree(folders[0], tmp_path / "other")
    path = tmp_path / "other" / "1" / CONTRACT_FILE
    contract = json.loads(path.read_text())
    for damaged in ({}, {"costs": {"separation_bytes": 1}}):
        path.write_text(json.dumps({key: contract[key] for key in contract if key != "costs"} | damaged))
        with pytest.raises(UserError, match="other does not say what it costs"):
            plan.main(["--models", str(tmp_path / "other")])


def test_another_network_is_refused_by_name(install, tmp_path):
    with pytest.raises(
        UserError, match=r"holds \[15, 2, 3\] as separator/conv1d/kernel, and the network has \[15, 1, 3\]"
    ):
        install("wave-u-net-m1", DATA / "wave-u-net-m4")
    with pytest.raises(UserError, match=r"holds separator/interp_0.* which the network does not have"):
        install("wave-u-net-m4", DATA / "wave-u-net-m5")
    with pytest.raises(UserError, match="has no tensor separator/interp_0"):
        install("wave-u-net-m5", DATA / "wave-u-net-m4")


@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
def test_a_checkpoint_that_is_cut_off_is_refused(install, tmp_path, suffix):
    shutil.copytree(DATA / "wave-u-net-m4", tmp_path / "weights")
    path = tmp_path / "weights" / f"model-1.{suffix}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="is damaged, or no checkpoint of TensorFlow"):
        install("wave-u-net-m4", tmp_path / "weights")


def onnx_file(path, *nodes, shape=("batch", 4, 128, 32), inputs=("input",)):
    """An ONNX file of some nodes."""
    from onnx import TensorProto, helper, save

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in inputs]
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)
    made = [helper.make_node(kind, [source], [target], name=kind) for kind, source, target in nodes]
    save(helper.make_model(helper.make_graph(made, "graph", values, [output])), path)


def test_other_onnx_files_are_refused(install, tmp_path):
    path = tmp_path / "model.onnx"
    onnx_file(path, ("Relu", "input", "output"))
    with pytest.raises(UserError, match="another network than MDX-Net's: a Conv should take input, and Relu does"):
        install("mdx-net-vocals", path)
    onnx_file(path, ("Relu", "input", "output"), shape=("batch", 2, 128))
    with pytest.raises(UserError, match=r"its input is \[0, 2, 128\], not \[batch, 4, bins, frames\]"):
        install("mdx-net-vocals", path)
    whole = (DATA / "mdx-net-6144" / "model.onnx").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is damaged, or no ONNX file"):
        install("mdx-net-vocals", path)


class Hostile:
    """A pickle of it would run a command where it is read."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def write_torch(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(content, protocol=2))


def test_pickles_that_want_more_than_tensors_are_refused(install, tmp_path):
    write_torch(tmp_path / "model.ckpt", {"state_dict": Hostile(f"touch {tmp_path / 'harm'}")})
    with pytest.raises(UserError, match=r"asks for posix\.system, which tensors do not need, so it is not read"):
        install("uvr-voc-ft", tmp_path / "model.ckpt")
    assert not (tmp_path / "harm").exists()


def test_other_checkpoints_are_refused(install, tmp_path):
    path = tmp_path / "model.ckpt"
    write_torch(path, {"weights": 1})
    with pytest.raises(UserError, match="does not hold state_dict and hyper_parameters"):
        install("uvr-voc-ft", path)
    write_torch(path, {"state_dict": {}, "hyper_parameters": {"dim_f": 128, "dim_t": "32"}})
    with pytest.raises(UserError, match="no numbers above 0 as dim_t and n_fft"):
        install("uvr-voc-ft", path)
    settings = {"dim_f": 128, "dim_t": 32, "n_fft": 384}
    write_torch(path, {"state_dict": {"first_conv.1.weight": "x"}, "hyper_parameters": settings})
    with pytest.raises(UserError, match=r"does not hold numbers as first_conv\.1\.weight"):
        install("uvr-voc-ft", path)
    write_torch(path, {"state_dict": {}, "hyper_parameters": settings})
    with pytest.raises(UserError, match=r"has no tensor first_conv\.1\.weight"):
        install("uvr-voc-ft", path)
    whole = (DATA / "mdx-net-checkpoint" / "model.ckpt").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"model\.ckpt is damaged, or no file of PyTorch"):
        install("uvr-voc-ft", path)


def test_other_checkpoints_of_the_third_version_are_refused(install, tmp_path):
    path = tmp_path / "model.ckpt"
    shutil.copy(DATA / "mdx-net-checkpoint" / "model.ckpt", path)
    with pytest.raises(UserError, match=r"has no tensor first_conv\.weight of 4 axes"):
        install("mdx23c-musdb", path)
    write_torch(path, [1, 2])
    with pytest.raises(UserError, match="holds no tensors by name"):
        install("mdx23c-musdb", path)
    whole = (DATA / "mdx23c" / "model.ckpt").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"model\.ckpt is damaged, or no file of PyTorch"):
        install("mdx23c-musdb", path)


def test_a_network_of_another_window_is_refused(install):
    with pytest.raises(UserError, match="has windows of 384 samples; here 480 are expected"):
        install("uvr-kim-vocal-2", DATA / "mdx-net-checkpoint" / "model.ckpt")


def test_shapes_that_do_not_belong_together_are_refused(install, tmp_path):
    import onnx

    model = onnx.load(DATA / "mdx-net-6144" / "model.onnx")
    last = model.graph.node[-1]
    for tensor in model.graph.initializer:
        if tensor.name == last.input[1]:
            tensor.dims[:] = [4, 3]
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(UserError, match=r"shapes \[\[4, 3\], \[4\]\] do not belong together"):
        install("mdx-net-vocals", tmp_path / "model.onnx")


def test_a_page_in_place_of_the_file_does_not_stay(monkeypatch, tmp_path):
    monkeypatch.setenv("SEPNET_CACHE", str(tmp_path))
    monkeypatch.setattr(pretrained, "fetch", lambda url, path, sha256: (path.parent.mkdir(), path.write_text("<html>")))
    with pytest.raises(UserError, match="is no archive and no file of"):
        pretrained.main(["wave-u-net-m4", "--saved-models", str(tmp_path / "models")])
    assert list((tmp_path / "pretrained").iterdir()) == []


def test_a_good_download_stays_whatever_else_fails(monkeypatch, tmp_path):
    def export(*_):
        raise UserError("cannot write")

    monkeypatch.setenv("SEPNET_CACHE", str(tmp_path))
    monkeypatch.setattr(pretrained, "fetch", lambda url, path, sha256: (path.parent.mkdir(), path.write_text("whole")))
    monkeypatch.setattr(pretrained, "load", lambda *_: lambda place, options: "a network")
    monkeypatch.setattr(pretrained, "_export", export)
    with pytest.raises(UserError, match="cannot write"):
        pretrained.main(["mdx23c-musdb", "--saved-models", str(tmp_path / "models")])
    assert [path.suffix for path in (tmp_path / "pretrained").iterdir()] == [".ckpt"]


def test_tensors_in_other_files_are_not_read(install, tmp_path):
    import onnx

    model = onnx.load(DATA / "mdx-net-6144" / "model.onnx")
    onnx.external_data_helper.convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(UserError, match="it does not hold the tensor"):
        install("mdx-net-vocals", tmp_path / "model.onnx")


def test_the_list_says_what_is_here(install, capsys, tmp_path):
    folder = install("wave-u-net-m4").parents[1]
    # What installing it says.
    capsys.readouterr()
    pretrained.main(["--saved-models", str(folder), "--json"])
    listed = json.loads(capsys.readouterr().out)
    assert [name for name, entry in listed.items() if entry["installed"]] == ["wave-u-net-m4"]
    pretrained.main(["--saved-models", str(tmp_path), "--list"])
    printed = capsys.readouterr().out
    assert "spleeter-4stems" in printed
    assert "wave-u-net-m1 to wave-u-net-m6: Stoller, Ewert, Dixon 2018, https://arxiv.org/abs/1806.03185" in printed


def test_names_that_cannot_be_had():
    with pytest.raises(UserError, match="--weights is of one model; give its NAME as well"):
        pretrained.main(["--weights", "model.onnx"])
    with pytest.raises(UserError, match="--json is for the list"):
        pretrained.main(["spleeter-2stems", "--json"])
    with pytest.raises(UserError, match="no pretrained model demucs; there are spleeter-2stems"):
        pretrained.main(["demucs"])
    with pytest.raises(UserError, match="no weights of wave-u-net-m1 are published; give --weights"):
        pretrained.main(["wave-u-net-m1"])


def test_another_back_end_is_refused_before_anything_is_fetched(run, tmp_path):
    flags = ["--saved-models", tmp_path / "models"]
    nowhere = {"SEPNET_CACHE": str(tmp_path), "https_proxy": "http://127.0.0.1:1"}
    outcome = run("sepnet.pretrained", "mdx23c-musdb", *flags, KERAS_BACKEND="jax", **nowhere)
    assert outcome.status == 2
    assert outcome.stderr == "error: models are exported by TensorFlow; leave out KERAS_BACKEND=jax\n"
    assert list(tmp_path.iterdir()) == []
