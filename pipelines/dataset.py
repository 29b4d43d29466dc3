"""The one tf.data chain: tracks on disk to int16 batches.

    positions (stateless random) → lanes (read, in parallel) → batch → prefetch

Where an example begins depends on the seed and on its number alone, so one seed gives the same batches whatever
reads them, in order, and a run that stopped goes on at any step.
"""

import itertools
import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from pipelines.errors import UserError
from pipelines.songs import MIXTURE, Track

READERS = ("auto", "tensorflow-io", "soundfile")
MAX_LANES = 8

# Gives every lane ops of its own; see `_lanes`.
_lane_numbers = itertools.count()


def training_batches(
    tracks: Sequence[Track],
    *,
    sources: Sequence[str],
    segment_samples: int,
    num_channels: int,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    reader: str = "auto",
) -> tf.data.Dataset:
    """Streams random segments without end.

    Songs are drawn in proportion to their length and a segment may begin at any sample; a song shorter than a
    segment is padded with zeros.

    Args:
        tracks: training tracks, one or more.
        sources: names of the sources, in the order in which they are stacked.
        segment_samples: length of a segment.
        num_channels: 1 or 2; files of the other kind are averaged or doubled.
        batch_size: segments in a batch.
        seed: any integer; the same seed gives the same batches.
        first_step: number of the first batch, to go on where a run has stopped.
        reader: one of `READERS`; "auto" takes tensorflow-io where it loads and all files are WAV.

    Returns:
        Dataset of `{"sources": int16 [batch_size, segment_samples, num_sources, num_channels]}`, full scale ±32768.

    Raises:
        UserError: tensorflow-io was asked for but cannot be used.
    """
    lengths = np.array([track.num_samples for track in tracks], np.int64)
    room = tf.constant(np.maximum(lengths - segment_samples, 0))
    ends = tf.constant(np.cumsum(lengths))

    def position(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        draws = tf.random.stateless_uniform([2], seed=tf.stack([tf.constant(seed, tf.int64), number]), dtype=tf.float64)
        point = tf.cast(draws[0] * tf.cast(ends[-1], tf.float64), tf.int64)
        track = tf.searchsorted(ends, point[None], side="right", out_type=tf.int64)[0]
        return track, tf.cast(draws[1] * tf.cast(room[track] + 1, tf.float64), tf.int64)

    read = _segment_reader(tracks, sources, segment_samples, num_channels, reader)
    examples = _lanes(
        lambda start, step: tf.data.Dataset.range(first_step * batch_size + start, np.iinfo(np.int64).max, step),
        lambda number: {"sources": read(*position(number))},
    )
    return examples.batch(batch_size, drop_remainder=True).prefetch(2)


def validation_batches(
    tracks: Sequence[Track],
    *,
    sources: Sequence[str],
    segment_samples: int,
    num_segments: int,
    num_channels: int,
    batch_size: int,
    reader: str = "auto",
) -> tf.data.Dataset:
    """Streams the fixed segments that every model is judged on, in order, once.

    The tracks are cut into segments that follow each other; of these, `num_segments` are taken, evenly spread over
    all of the audio (all of them where there are fewer). They depend on the arguments alone: not on a seed, a model
    or a depth.

    Returns:
        Dataset of `{"sources": int16 [batch, segment_samples, num_sources, num_channels],
        "mixture": int16 [batch, segment_samples, num_channels]}`; the mixture is the song's own, or the sum of its
        sources where it has none. The last batch may be smaller.
    """
    positions = [
        (index, start)
        for index, track in enumerate(tracks)
        for start in range(0, max(track.num_samples - segment_samples, 0) + 1, segment_samples)
    ]
    chosen = np.linspace(0, len(positions) - 1, min(num_segments, len(positions))).round().astype(int)
    table = tf.constant(np.array(positions, np.int64)[chosen])
    has_mixture = all(MIXTURE in track.files for track in tracks)
    stems = (*sources, MIXTURE) if has_mixture else tuple(sources)
    read = _segment_reader(tracks, stems, segment_samples, num_channels, reader)

    def example(number: tf.Tensor) -> dict[str, tf.Tensor]:
        audio = read(table[number, 0], table[number, 1])
        if has_mixture:
            return {"sources": audio[:, :-1], "mixture": audio[:, -1]}
        total = tf.reduce_sum(tf.cast(audio, tf.int32), axis=1)
        return {"sources": audio, "mixture": tf.cast(tf.clip_by_value(total, -(2**15), 2**15 - 1), tf.int16)}

    examples = _lanes(lambda start, step: tf.data.Dataset.range(start, len(chosen), step), example)
    # Keras asks for the number of batches, which tf.data does not find out by itself here.
    return examples.apply(tf.data.experimental.assert_cardinality(len(chosen))).batch(batch_size).prefetch(2)


def _lanes(
    numbers: Callable[[int, int], tf.data.Dataset], example: Callable[[tf.Tensor], dict[str, tf.Tensor]]
) -> tf.data.Dataset:
    """Reads examples in parallel and keeps their order.

    tensorflow-io keeps an open file in a resource named after its op. `map` with parallel calls runs one op for many
    files at once, and now and then hands out samples of another file. So every lane reads one example after the
    other with ops of its own name, and the lanes run beside each other.
    """
    num_lanes = min(os.cpu_count() or 1, MAX_LANES)

    def lane(start: int) -> tf.data.Dataset:
        scope = f"lane_{next(_lane_numbers)}"

        def scoped_example(number):
            with tf.name_scope(scope):
                return example(number)

        return numbers(start, num_lanes).map(scoped_example).prefetch(4)

    order = tf.data.Dataset.range(num_lanes).repeat()
    return tf.data.Dataset.choose_from_datasets([lane(start) for start in range(num_lanes)], order)


def _segment_reader(
    tracks: Sequence[Track], stems: Sequence[str], segment_samples: int, num_channels: int, reader: str
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Makes `read(track, start)`: int16 `[segment_samples, num_stems, num_channels]`, padded with zeros at the end."""
    paths = tf.constant([[str(track.files[stem]) for stem in stems] for track in tracks])
    read_file = _read_with_tfio if _chosen_reader(reader, tracks) == "tensorflow-io" else _read_with_soundfile

    def read(track: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
        stacked = []
        for index in range(len(stems)):
            samples = _match_channels(read_file(paths[track, index], start, start + segment_samples), num_channels)
            padding = [[0, segment_samples - tf.shape(samples)[0]], [0, 0]]
            stacked.append(tf.ensure_shape(tf.pad(samples, padding), [segment_samples, num_channels]))
        return tf.stack(stacked, axis=1)

    return read


def _match_channels(samples: tf.Tensor, num_channels: int) -> tf.Tensor:
    """Averages `[num_samples, any]` to one channel, or repeats one channel to `num_channels`."""
    if num_channels == 1:
        return tf.cast(tf.reduce_mean(tf.cast(samples, tf.int32), axis=1, keepdims=True), tf.int16)
    return tf.cond(tf.shape(samples)[1] == 1, lambda: tf.repeat(samples, num_channels, axis=1), lambda: samples)


def _chosen_reader(reader: str, tracks: Sequence[Track]) -> str:
    if reader == "soundfile":
        return reader
    all_wav = all(track.is_wav for track in tracks)
    problem = "not all files are 16-bit WAV" if not all_wav else _tfio_problem(next(iter(tracks[0].files.values())))
    if reader == "tensorflow-io" and problem:
        raise UserError(f"the tensorflow-io reader cannot be used ({problem}); choose --reader soundfile")
    return "soundfile" if problem else "tensorflow-io"


def _tfio_problem(path) -> str | None:
    """Why tensorflow-io cannot read here, or None: its ops need the TensorFlow that it was built for."""
    try:
        import tensorflow_io
    except ImportError:
        return "tensorflow-io is not installed; it has no wheels for this Python or system"
    try:
        tensorflow_io.audio.AudioIOTensor(str(path), dtype=tf.int16)
    except (NotImplementedError, AttributeError):
        return f"tensorflow-io {tensorflow_io.__version__} does not load with TensorFlow {tf.__version__}"
    return None


def _read_with_tfio(path: tf.Tensor, start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
    import tensorflow_io

    samples = tensorflow_io.audio.AudioIOTensor(path, dtype=tf.int16)[start:stop]
    return tf.ensure_shape(samples, [None, None])


def _read_with_soundfile(path: tf.Tensor, start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
    import soundfile

    def read(path: bytes, start: np.int64, stop: np.int64) -> np.ndarray:
        with soundfile.SoundFile(path.decode()) as file:
            file.seek(min(start, file.frames))
            return file.read(stop - start, dtype="int16", always_2d=True)

    return tf.ensure_shape(tf.numpy_function(read, [path, start, stop], tf.int16), [None, None])
