"""`sepnet.preview`: pages of stem sets that are made up, and what is no finished set."""

import hashlib
import io
import pathlib
import random
import re
import shutil

import numpy as np
import pyarrow.parquet
import pytest
import soundfile

from pipelines.errors import UserError
from sepnet.preview import main
from sepnet.stem_sets.destination import Destination
from sepnet.stem_sets.overview import EDGES, read_overview
from sepnet.stem_sets.stem_set import StemSet
from tests.page_reader import Page, content, read_page
from tests.sepnet.stem_sets.clips import clips, failures, rows_of, samples, settings, tree, write

HOSTILE = '</h3><script>alert("1")</script>\n&amp; 🎻 \' onerror=x'
MEDIA_TYPES = {"flac": "audio/flac", "opus": "audio/ogg"}


def make_set(address, audio_format="flac", layout="webdataset", **changes) -> list[dict]:
    """Writes a set, and returns the rows of its manifest."""
    stem_set = StemSet.create_or_continue(str(address), settings(audio_format=audio_format, layout=layout))
    write(stem_set, **changes)
    with stem_set.destination.open("manifest.parquet") as file:
        return rows_of(file.read())


class Texts(Page):
    """A page, and the text that each tag of some names holds."""

    def __init__(self, text):
        self.texts = {"h3": [], "p": [], "figcaption": []}
        super().__init__(text)

    def handle_starttag(self, tag, attrs):
        super().handle_starttag(tag, attrs)
        if tag in self.texts:
            self.texts[tag].append("")

    def handle_data(self, data):
        super().handle_data(data)
        inner = next((tag for tag in reversed(self._open) if tag in self.texts), None)
        if inner:
            self.texts[inner][-1] += data


def texts_of(path: pathlib.Path) -> dict[str, list[str]]:
    return Texts(path.read_text(encoding="utf-8")).texts


@pytest.mark.parametrize("layout", ["webdataset", "folder"])
@pytest.mark.parametrize("audio_format", ["flac", "opus"])
def test_the_page_holds_every_clip_as_it_is_in_the_set(tmp_path, audio_format, layout):
    rows = make_set(tmp_path / "set", audio_format, layout)
    main([str(tmp_path / "set")])
    page = read_page(tmp_path / "set" / "preview.html")
    players = page.named("audio")
    assert len(players) == len(rows) == 15 and len(page.named("img")) == 3
    for player, row in zip(players, rows, strict=True):
        audio = content(player["src"], MEDIA_TYPES[audio_format])
        assert hashlib.sha256(audio).hexdigest() == row["sha256"]
        assert soundfile.info(io.BytesIO(audio)).channels == 2
        assert row["song_id"] in player["aria-label"] and row["caption"] in player["aria-label"]
    if audio_format == "flac":
        # Clip 2 of song 1, by its own samples.
        read, _ = soundfile.read(io.BytesIO(content(players[5]["src"], "audio/flac")), dtype="float32")
        np.testing.assert_allclose(read, samples(1, 2), atol=2**-15)


def test_counts_scores_and_places_are_those_of_the_rows(tmp_path):
    rows = make_set(tmp_path / "set")
    main([str(tmp_path / "set")])
    page, texts = read_page(tmp_path / "set" / "preview.html"), texts_of(tmp_path / "set" / "preview.html")
    # The songs of the first shard have stems that pass, the three others remixes that do not.
    assert page.rows == [
        ["kind", "clips", "pass", "do not"],
        ["remix", "9", "0", "9"],
        ["stem", "6", "6", "0"],
        ["reason", "clips"],
        ["bleed", "9"],
    ]
    summary, *scores = texts["p"]
    assert summary.startswith("15 clips, 0.00 h; 6 of them pass.") and "umbrella (version 3)" in summary
    assert texts["h3"] == [row["caption"] for row in rows]
    assert scores[0] == (
        "stem, 0.2 s · loudness unknown · silence 0.00 · bleed unknown · clipping 0.0000 · gain -1.0 dB · passes"
    )
    assert scores[-1].startswith("remix, 0.2 s · -23.5 LUFS · silence 0.00 · bleed 0.12")
    assert scores[-1].endswith("does not pass: bleed")
    assert page.named("audio")[-1]["aria-label"].startswith(
        "album/song 4 from 0:00, vocals, drums + album/other from 0:02, bass, "
    )
    loudness, silence, bleed = texts["figcaption"]
    assert loudness.endswith("9 clips, and 6 for which it is not known")
    assert silence.endswith("15 clips") and bleed.endswith("9 clips, and 6 for which it is not known")


@pytest.mark.parametrize("layout", ["webdataset", "folder"])
def test_a_sample_is_drawn_by_its_seed_and_gives_the_same_bytes_again(tmp_path, layout):
    rows = make_set(tmp_path / "set", layout=layout)
    pages = [tmp_path / f"{number}.html" for number in range(3)]
    for page, seed in zip(pages, (7, 7, 8), strict=True):
        main([str(tmp_path / "set"), "--clips", "4", "--seed", str(seed), "--to", str(page)])
    assert pages[0].read_bytes() == pages[1].read_bytes() != pages[2].read_bytes()
    chosen = sorted(random.Random(7).sample(range(15), 4))
    played = [content(player["src"], "audio/flac") for player in read_page(pages[0]).named("audio")]
    assert [hashlib.sha256(audio).hexdigest() for audio in played] == [rows[place]["sha256"] for place in chosen]
    # What is told of all clips is told of all.
    assert texts_of(pages[0])["figcaption"] == texts_of(pages[2])["figcaption"]
    assert not (tmp_path / "set" / "preview.html").exists()


def test_captions_and_reasons_are_no_html(tmp_path):
    make_set(tmp_path / "set", caption=HOSTILE, kind="<b>", reasons=["<i>"], passes=False, model="<script>")
    main([str(tmp_path / "set"), "--clips", "2"])
    page, texts = read_page(tmp_path / "set" / "preview.html"), texts_of(tmp_path / "set" / "preview.html")
    assert texts["h3"] == [HOSTILE, HOSTILE]
    assert all(player["aria-label"].endswith(HOSTILE) and "onerror" not in player for player in page.named("audio"))
    assert ["<b>", "15", "0", "15"] in page.rows and ["<i>", "15"] in page.rows
    assert not page.named("b") and not page.named("i")


def test_histograms_count_all_clips_batch_by_batch(tmp_path):
    """More rows than one batch holds, against NumPy on the whole table."""
    make_set(tmp_path / "set")
    manifest = tmp_path / "set" / "manifest.parquet"
    few = pyarrow.parquet.read_table(manifest)
    many = few.take(np.arange(150_000) % len(few))
    generator = np.random.default_rng(0)
    drawn = {
        "loudness_lufs": generator.normal(-30, 30, len(many)),
        "silence": generator.random(len(many)),
        "bleed": generator.random(len(many)),
    }
    drawn["bleed"][::7] = np.nan
    passes = generator.random(len(many)) < 0.3
    columns = {**drawn, "passes": passes, "id": [str(place) for place in range(len(many))]}
    for name, values in columns.items():
        place, field = many.schema.get_field_index(name), many.schema.field(name)
        many = many.set_column(place, field, pyarrow.array(values, field.type, from_pandas=True))
    pyarrow.parquet.write_table(many, manifest)

    overview = read_overview(Destination(str(tmp_path / "set")), 50, 3)
    for name, values in drawn.items():
        edges, known = EDGES[name], ~np.isnan(values)
        inside = np.clip(values, edges[0], edges[-1])
        for place, chosen in enumerate((~passes & known, passes & known)):
            np.testing.assert_array_equal(overview.histograms[name][place], np.histogram(inside[chosen], edges)[0])
        assert overview.histograms[name].sum() + overview.num_unknown[name] == len(many)
    assert sum(overview.num_clips[kind, True] for kind in ("stem", "remix")) == passes.sum()
    assert overview.seconds == pytest.approx(0.25 * len(many))
    sampled = [int(row["id"]) for row in overview.sample]
    assert sampled == sorted(random.Random(3).sample(range(len(many)), 50))
    assert [row["silence"] for row in overview.sample] == drawn["silence"][sampled].tolist()


def test_sets_anywhere(anywhere, tmp_path):
    rows = make_set(anywhere)
    if "://" in anywhere:
        with pytest.raises(UserError, match=r"not on this machine.*--to"):
            main([anywhere])
    main([anywhere, "--to", str(tmp_path / "pages" / "page.html")])
    played = read_page(tmp_path / "pages" / "page.html").named("audio")
    assert [hashlib.sha256(content(player["src"], "audio/flac")).hexdigest() for player in played] == [
        row["sha256"] for row in rows
    ]


def test_a_set_without_clips_has_a_page(tmp_path):
    stem_set = StemSet.create_or_continue(str(tmp_path / "set"), settings())
    for shard in stem_set.shards_to_do():
        stem_set.write_shard(shard, [], failures(shard))
    stem_set.finish()
    main([str(tmp_path / "set")])
    page = read_page(tmp_path / "set" / "preview.html")
    assert not page.named("audio") and len(page.named("img")) == 3
    assert texts_of(tmp_path / "set" / "preview.html")["p"] == ["0 clips, 0.00 h; 0 of them pass."]


def test_a_set_with_its_page_is_still_a_set(tmp_path):
    make_set(tmp_path / "set")
    main([str(tmp_path / "set")])
    before = tree(tmp_path / "set")
    make_set(tmp_path / "set")
    assert tree(tmp_path / "set") == before


def begun(folder):
    stem_set = StemSet.create_or_continue(str(folder), settings())
    stem_set.write_shard(0, clips(0), [])


def finished(folder):
    make_set(folder)


def without_a_column(folder):
    make_set(folder)
    manifest = pyarrow.parquet.read_table(folder / "manifest.parquet")
    pyarrow.parquet.write_table(manifest.drop_columns(["bleed"]), folder / "manifest.parquet")


def cut_manifest(folder):
    make_set(folder)
    manifest = folder / "manifest.parquet"
    manifest.write_bytes(manifest.read_bytes()[:-10])


def no_shard(folder):
    make_set(folder)
    (folder / "data" / "shard-00001.tar").unlink()


def no_tar(folder):
    make_set(folder)
    (folder / "data" / "shard-00001.tar").write_bytes(b"no tar at all\n" * 1000)


def cut_shard(folder):
    make_set(folder)
    shard = folder / "data" / "shard-00002.tar"
    shard.write_bytes(shard.read_bytes()[:30_000])


def other_audio(folder):
    make_set(folder, layout="folder")
    first, second, *_ = sorted(folder.glob("audio/**/*.flac"))
    shutil.copy(first, second)


MISTAKES = [
    (lambda folder: None, [], "is no stem set, for it has no settings.json; give a folder that sepnet.augment wrote"),
    (lambda folder: folder.mkdir(), [], "is no stem set"),
    (begun, [], "is not finished, for it has no manifest.parquet; start sepnet.augment .* again to go on"),
    (without_a_column, [], r"manifest.parquet is damaged \(it lacks bleed\); remove it, and start sepnet.augment"),
    (cut_manifest, [], "manifest.parquet is damaged"),
    (no_shard, [], "the clip 'album/song 2/0. stem' is not as it was written to .*shard-00001.tar"),
    (no_tar, [], "shard-00001.tar is damaged, or no tar"),
    (cut_shard, [], "shard-00002.tar"),
    (other_audio, [], "the clip .* is not as it was written to .*flac; copy the set again"),
    (finished, ["--clips", "0"], "'0' is no whole number above 0"),
    (finished, ["--to", "{set}"], "is a folder; give --to a file"),
    (finished, ["--to", "{set}/settings.json/page.html"], "cannot write .*settings.json"),
]


@pytest.mark.parametrize(("make", "arguments", "message"), MISTAKES)
def test_mistakes_are_named_and_leave_nothing(tmp_path, make, arguments, message):
    folder = tmp_path / "set"
    make(folder)
    before = tree(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        main([str(folder), *(argument.format(set=folder) for argument in arguments)])
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before


def test_the_command_names_the_page(run, tmp_path):
    make_set(tmp_path / "set")
    outcome = run("sepnet.preview", tmp_path / "set", "--clips", "1")
    assert (outcome.status, outcome.stderr) == (0, "")
    assert outcome.stdout.split() == ["page:", str(tmp_path / "set" / "preview.html")]
    refused = run("sepnet.preview", tmp_path)
    assert refused.status == 2 and re.fullmatch(r"error: .* is no stem set, .*\n", refused.stderr)
