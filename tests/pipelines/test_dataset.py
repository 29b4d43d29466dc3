"""Batches against the files as soundfile reads them. Where a segment comes from is written in its samples."""

import struct
import sys

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from pipelines.audio.reading import measure
from pipelines.batches.dataset import training_batches, validation_batches
from pipelines.errors import UserError
from pipelines.songs.layouts import find_songs, read_track

SOURCES = ("speech", "noise")
# tensorflow-io's ops load with the TensorFlow that they were built for; setup.cfg says where the two come together.
HAS_TFIO = sys.platform != "win32" and tuple(map(int, tf.__version__.split(".")[:2])) < (2, 18)
READERS = ("portable", "tensorflow-io") if HAS_TFIO else ("portable",)
EVEN_CHUNK = b"LIST" + struct.pack("<I", 6) + b"a note"
ODD_CHUNK = b"LIST" + struct.pack("<I", 5) + b"note!\0"


@pytest.fixture
def write_tracks(tmp_path):
    """Writes songs whose left channel counts samples from 1 and whose right one names song and source."""

    def write(lengths, folder="songs", num_channels=2, suffix=".wav", container=None, mixture=False):
        for song, num_samples in enumerate(lengths):
            place = tmp_path / folder / f"song {song:03}"
            place.mkdir(parents=True)
            for index, name in enumerate((*SOURCES, *["mixture"] * mixture)):
                samples = np.stack([np.arange(1, num_samples + 1), np.full(num_samples, name_of(song, index))], axis=1)
                samples = samples.astype(np.int16)[:, :num_channels]
                soundfile.write(place / f"{name}{suffix}", samples, 8000, "PCM_16", format=container)
        songs = sorted(find_songs(tmp_path / folder), key=lambda song: song.name)
        return [read_track(song, SOURCES, measure) for song in songs]

    return write


def name_of(song, source):
    return 100 * (song + 1) + source


def take(count, tracks, **options):
    """The first batches of training as one array `[examples, num_sources, num_samples, num_channels]`."""
    defaults = {"stems": SOURCES, "segment_samples": 50, "num_channels": 2, "batch_size": 4, "seed": 0}
    batches = training_batches(tracks, **{**defaults, **options})
    return np.concatenate([batch["stems"] for batch in batches.take(count).as_numpy_iterator()])


def validate(tracks, **options):
    """All validation examples: sources and mixture, and the sizes of the batches."""
    defaults = {"stems": SOURCES, "segment_samples": 50, "num_segments": 7, "num_channels": 2, "batch_size": 3}
    batches = list(validation_batches(tracks, **{**defaults, **options}).as_numpy_iterator())
    sources, mixture = (np.concatenate([batch[name] for batch in batches]) for name in ("stems", "mixture"))
    return sources, mixture, [len(batch["mixture"]) for batch in batches]


def places(examples):
    """Song and first sample of each example, from what is written in its first source."""
    return [(int(example[0, 0, 1]) // 100 - 1, int(example[0, 0, 0]) - 1) for example in examples]


@pytest.mark.parametrize("reader", READERS)
def test_examples_are_what_soundfile_reads_at_their_place(write_tracks, reader):
    tracks = write_tracks([500, 51, 1200])
    examples = take(10, tracks, reader=reader)
    assert examples.dtype == np.int16 and examples.shape == (40, 2, 50, 2)
    for example, (song, start) in zip(examples, places(examples), strict=True):
        for index, source in enumerate(SOURCES):
            expected, _ = soundfile.read(tracks[song].files[source], 50, start, dtype="int16")
            np.testing.assert_array_equal(example[index], expected)
    assert len(set(places(examples))) > 30


def test_one_seed_gives_the_same_batches_whatever_reads_them(write_tracks):
    tracks = write_tracks([500, 400])
    expected = take(6, tracks, reader="portable")
    for reader in (*READERS, "auto"):
        np.testing.assert_array_equal(take(6, tracks, reader=reader), expected)
        # A run that has stopped after four batches goes on with the fifth.
        np.testing.assert_array_equal(take(2, tracks, reader=reader, first_step=4), expected[16:])
    assert places(take(6, tracks, seed=1)) != places(expected)
    # Where an example begins depends on its number, not on how examples are put together.
    assert places(take(3, tracks, batch_size=8)) == places(expected)


def test_places_are_those_of_the_first_version(write_tracks):
    """A run that is repeated years later sees the same batches."""
    lengths = [500, 51, 1200, 30]
    examples = take(8, write_tracks(lengths), seed=3)
    for number, place in enumerate(places(examples)):
        song, position = tf.random.stateless_uniform([2], seed=[3, number], dtype=tf.float64).numpy()
        index = int(np.searchsorted(np.cumsum(lengths), int(song * sum(lengths)), side="right"))
        assert place == (index, int(position * (max(lengths[index] - 50, 0) + 1)))


def test_songs_are_drawn_in_proportion_to_their_length(write_tracks):
    lengths = np.array([1000, 3000, 6000])
    drawn = places(take(150, write_tracks(lengths), batch_size=10))
    expected = 1500 * lengths / lengths.sum()
    observed = np.bincount([song for song, _ in drawn], minlength=3)
    # One in a thousand fair draws has a chi-squared above 13.8 for three songs.
    assert np.sum((observed - expected) ** 2 / expected) < 13.8
    starts = np.array([start for song, start in drawn if song == 2]) / (6000 - 50)
    assert starts.mean() == pytest.approx(0.5, abs=4 / np.sqrt(12 * len(starts)))
    assert np.std(starts) == pytest.approx(np.sqrt(1 / 12), rel=0.1)


def test_a_segment_may_begin_at_any_sample(write_tracks):
    drawn = places(take(20, write_tracks([53]), batch_size=4))
    assert set(drawn) == {(0, start) for start in range(4)}


@pytest.mark.parametrize("reader", READERS)
def test_beyond_the_ends_of_a_song_are_zeros(write_tracks, reader):
    counted = np.arange(1, 31)
    for example in take(3, write_tracks([30]), reader=reader):
        np.testing.assert_array_equal(example[0, :, 0], [*counted, *[0] * 20])


@pytest.mark.parametrize("reader", READERS)
def test_margins_are_the_song_around_a_segment(write_tracks, reader):
    tracks = write_tracks([60, 200])
    plain, wide = (take(5, tracks, reader=reader, margin_samples=margin) for margin in (0, 30))
    assert wide.shape == (20, 2, 110, 2)
    np.testing.assert_array_equal(wide[:, :, 30:80], plain)
    for example, (song, start) in zip(wide, places(plain), strict=True):
        whole = np.pad(np.arange(1, tracks[song].num_samples + 1), 100)
        np.testing.assert_array_equal(example[1, :, 0], whole[start + 70 : start + 180])


@pytest.mark.parametrize("reader", READERS)
def test_channels_are_repeated_or_averaged(write_tracks, reader):
    stereo = write_tracks([500], folder="stereo")
    mono = write_tracks([300], folder="mono", num_channels=1)
    doubled = take(2, mono, reader=reader)
    np.testing.assert_array_equal(doubled[..., 0], doubled[..., 1])
    np.testing.assert_array_equal(np.diff(doubled[..., 0], axis=2), 1)
    both, averaged = (take(2, stereo, reader=reader, num_channels=number) for number in (2, 1))
    assert averaged.shape[3] == 1
    assert np.abs(both.mean(axis=3) - averaged[..., 0]).max() <= 0.5
    # Songs of either kind in one data set.
    mixed = take(6, [*stereo, *mono], reader=reader)
    assert {example[0, 0, 0] == example[0, 0, 1] for example in mixed} == {True, False}


def test_flac_gives_what_wav_gives(write_tracks):
    expected = take(4, write_tracks([500, 300], folder="wav"))
    flac = write_tracks([500, 300], folder="flac", suffix=".flac")
    np.testing.assert_array_equal(take(4, flac), expected)
    with pytest.raises(UserError, match="choose --reader portable"):
        take(1, flac, reader="tensorflow-io")


def test_a_flac_that_is_damaged_in_the_middle_is_named(tmp_path):
    for name in SOURCES:
        path = tmp_path / "song" / f"{name}.flac"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, np.random.default_rng(0).integers(-9999, 9999, (60_000, 2), np.int16), 8000, "PCM_16")
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 3 * 2] = bytes(len(content) // 3)
    path.write_bytes(content)
    [song] = find_songs(tmp_path)
    track = read_track(song, SOURCES, measure)
    with pytest.raises(tf.errors.UnknownError, match=r"UserError: cannot decode .*noise\.flac: .*; expected"):
        take(100, [track])


@pytest.mark.parametrize("reader", ["auto", *READERS])
@pytest.mark.parametrize(
    ("container", "before_format", "before_samples", "behind_samples"),
    [
        ("WAVEX", b"", b"", b""),
        ("WAV", b"", EVEN_CHUNK, EVEN_CHUNK),
        # These three make tensorflow-io stop in the middle of a run.
        ("WAV", EVEN_CHUNK, b"", b""),
        ("WAV", b"", ODD_CHUNK, b""),
        ("WAV", b"", b"", ODD_CHUNK),
    ],
)
def test_any_wav_is_read(write_tracks, container, before_format, before_samples, behind_samples, reader):
    tracks = write_tracks([300], container=container)
    for path in tracks[0].files.values() if container == "WAV" else ():
        written = path.read_bytes()
        chunks = before_format + written[12:36] + before_samples + written[36:] + behind_samples
        path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    if reader == "tensorflow-io" and (before_format or ODD_CHUNK in (before_samples, behind_samples)):
        with pytest.raises(UserError, match="choose --reader portable"):
            take(1, tracks, reader=reader)
        return
    examples = take(3, tracks, reader=reader)
    for example, (_, start) in zip(examples, places(examples), strict=True):
        np.testing.assert_array_equal(example[1, :, 0], np.arange(start + 1, start + 51))
        np.testing.assert_array_equal(example[1, :, 1], name_of(0, 1))


def test_wav_of_the_other_byte_order_is_not_streamed_as_it_is(tmp_path):
    for source in SOURCES:
        (tmp_path / "song").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "song" / f"{source}.wav", np.ones((9, 2)), 8000, "PCM_16", endian="BIG")
    [song] = find_songs(tmp_path)
    assert not read_track(song, SOURCES, measure).streamable


@pytest.mark.parametrize("reader", READERS)
def test_validation_segments_are_fixed_and_spread_over_all_songs(write_tracks, reader):
    tracks = write_tracks([330, 40, 1000], mixture=True)
    sources, mixture, sizes = validate(tracks, reader=reader)
    assert sizes == [3, 3, 1]
    # Six segments of the first song, the short one, and twenty: of these 27, every 13 / 3.
    assert places(sources) == [(0, 0), (0, 200), (2, 100), (2, 300), (2, 500), (2, 750), (2, 950)]
    np.testing.assert_array_equal(mixture[..., 0], sources[:, 0, :, 0])
    assert mixture[0, 0, 1] == name_of(0, 2)
    for batch_size in (1, 7):
        np.testing.assert_array_equal(validate(tracks, batch_size=batch_size)[0], sources)
    everything, _, _ = validate(tracks, num_segments=1000, reader=reader)
    assert places(everything) == [
        *((0, start) for start in range(0, 300, 50)),
        (1, 0),
        *((2, start) for start in range(0, 1000, 50)),
    ]
    np.testing.assert_array_equal(everything[6, 0, :, 0], [*range(1, 41), *[0] * 10])


def test_songs_without_a_mixture_are_validated_on_the_sum_of_their_sources(write_tracks):
    tracks = write_tracks([20_000])
    sources, mixture, _ = validate(tracks, num_segments=400, batch_size=4)
    total = sources.astype(int).sum(axis=1)
    assert total.max() > 32_767
    np.testing.assert_array_equal(mixture, np.clip(total, -32_768, 32_767))


@pytest.mark.parametrize("reader", READERS)
def test_files_are_never_mixed_up(write_tracks, reader):
    """Two data sets that read many files as fast as they can: every segment is of one file, and of the right one."""
    tracks = write_tracks([3000] * 40)
    options = {"stems": SOURCES, "segment_samples": 1000, "num_channels": 2, "batch_size": 16, "reader": reader}
    streams = [training_batches(tracks, **options, seed=seed).take(100).as_numpy_iterator() for seed in (0, 1)]
    examples = np.concatenate([batch["stems"] for batches in zip(*streams, strict=True) for batch in batches])
    assert len(examples) == 3200
    np.testing.assert_array_equal(np.diff(examples[..., 0], axis=2), 1)
    np.testing.assert_array_equal(examples[:, 0, :, 0], examples[:, 1, :, 0])
    songs = examples[:, 0, 0, 1] // 100 - 1
    assert set(songs) == set(range(40))
    for source in range(len(SOURCES)):
        expected = np.repeat(name_of(songs, source)[:, None], 1000, axis=1)
        np.testing.assert_array_equal(examples[:, source, :, 1], expected)
