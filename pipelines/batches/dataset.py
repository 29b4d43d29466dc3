"""The one tf.data chain: tracks on disk to int16 batches.

    numbers of examples → positions (stateless random) → a batch, read in one piece → prefetch

Where an example begins depends on the seed and on its number alone, so one seed gives the same batches whatever
reads them, in order, and a run that stopped goes on at any step. In a batch the stems come before the samples,
`[batch_size, num_stems, num_samples, num_channels]`, as the files have them: turning them here would cost more
than all of the reading does, and the device does it in passing.
"""

import atexit
import itertools
import os
import time
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from pipelines.audio.channels import match_channels
from pipelines.audio.decoding import decoding
from pipelines.audio.wav import is_plain_wav, wav_data_offset
from pipelines.errors import UserError
from pipelines.songs.layouts import MIXTURE, Track

READERS = ("auto", "tensorflow-io", "portable")

# Reads the segments that begin at `starts` of `tracks`, `[batch_size, num_stems]`: (tracks, starts) -> int16 batch.
BatchReader = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

# The functions here decide nothing in Python by a tensor's value; to look for that would take a second of every start.
NO_AUTOGRAPH = tf.autograph.experimental.do_not_convert
# With autotuning, an iterator that is given up waits for a thread that sleeps for as long as the iterator has lived.
PLAIN = tf.data.Options()
PLAIN.autotune.enabled = False

_scopes = itertools.count()

# Calls of the portable reader; see `_let_prefetching_end`.
_reads = {"begun": 0, "ended": 0}


def training_batches(
    tracks: Sequence[Track],
    *,
    stems: Sequence[str],
    segment_samples: int,
    num_channels: int,
    batch_size: int,
    seed: int,
    margin_samples: int = 0,
    first_step: int = 0,
    reader: str = "auto",
) -> tf.data.Dataset:
    """Streams random segments without end.

    Songs are drawn in proportion to their length and a segment may begin at any sample; beyond a song's ends are
    zeros. Of recordings, every stem of an example has its own, and one that is shorter than a segment lies anywhere in
    it.

    Args:
        tracks: training tracks: songs, or recordings of every stem.
        stems: names of the stems, in the order in which they are stacked.
        segment_samples: length of a segment.
        num_channels: of the batches; where files have another number, these are averaged to 1 or repeated.
        batch_size: segments in a batch.
        seed: any integer; the same seed gives the same batches.
        margin_samples: samples of the song that are read before and after each segment, besides it.
        first_step: number of the first batch, to go on where a run has stopped.
        reader: one of `READERS`; "auto" takes tensorflow-io where it loads and all files are WAV.

    Returns:
        Dataset of `{"stems": int16 [batch_size, num_stems, margin_samples + segment_samples + margin_samples,
        num_channels]}`, full scale ±32768.

    Raises:
        UserError: tensorflow-io was asked for but cannot be used.
    """
    are_songs = not any(track.is_recording for track in tracks)
    # What a draw chooses from: all stems of a song at once, or the recordings of one stem.
    choices = [
        _choices([(index, track) for index, track in enumerate(tracks) if stem in track.files], segment_samples)
        for stem in stems[: 1 if are_songs else None]
    ]

    def position(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        draws = tf.random.stateless_uniform(
            [len(choices), 2], seed=tf.stack([tf.constant(seed, tf.int64), number]), dtype=tf.float64
        )
        found = [choose(draws[column]) for column, choose in enumerate(choices)] * (len(stems) if are_songs else 1)
        rows, starts = zip(*found, strict=True)
        return tf.stack(rows), tf.stack(starts) - margin_samples

    read = _batch_reader(
        tracks, stems, segment_samples + 2 * margin_samples, num_channels, reader, has_margin=margin_samples > 0
    )

    @NO_AUTOGRAPH
    def batch(step: tf.Tensor) -> dict[str, tf.Tensor]:
        positions = [position(step * batch_size + index) for index in range(batch_size)]
        return {"stems": read(*(tf.stack(part) for part in zip(*positions, strict=True)))}

    # `map` runs one call at a time: a call reads its files beside each other, see `_tfio_reader`.
    return tf.data.Dataset.range(first_step, np.iinfo(np.int64).max).map(batch).prefetch(2).with_options(PLAIN)


def _choices(tracks: Sequence[tuple[int, Track]], segment_samples: int) -> Callable[[tf.Tensor], tuple]:
    """Makes of two numbers in [0, 1) a track's number and where a segment begins in it."""
    rows, lengths = np.array([(row, track.num_samples) for row, track in tracks], np.int64).T
    room = lengths - segment_samples
    # A short song begins where the segment does, a short recording anywhere that leaves room for it.
    firsts = np.minimum(room, 0) * np.array([track.is_recording for _, track in tracks])
    rows, ends, firsts, counts = map(tf.constant, (rows, np.cumsum(lengths), firsts, np.maximum(room, 0) - firsts + 1))

    def choose(draws: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        point = tf.cast(draws[0] * tf.cast(ends[-1], tf.float64), tf.int64)
        index = tf.searchsorted(ends, point[None], side="right", out_type=tf.int64)[0]
        return rows[index], firsts[index] + tf.cast(draws[1] * tf.cast(counts[index], tf.float64), tf.int64)

    return choose


def validation_batches(
    tracks: Sequence[Track],
    *,
    stems: Sequence[str],
    segment_samples: int,
    num_segments: int,
    num_channels: int,
    batch_size: int,
    num_devices: int = 1,
    reader: str = "auto",
) -> tf.data.Dataset:
    """Streams the fixed segments that every model is judged on, in order, once.

    The tracks are cut into segments that follow each other; of these, `num_segments` are taken, evenly spread over
    all of the audio (all of them where there are fewer). They depend on the arguments alone: not on a seed, a model
    or a depth.

    Returns:
        Dataset of `{"stems": int16 [batch, num_stems, segment_samples, num_channels],
        "mixture": int16 [batch, segment_samples, num_channels]}`; the mixture is the song's own, or the sum of its
        stems where not all songs have one. The last batch may be smaller. With several devices, which TensorFlow
        shares no smaller batch among, all are as large as the largest size up to `batch_size` that allows it.

    Raises:
        UserError: the devices cannot share the segments.
    """
    positions = [
        (index, start)
        for index, track in enumerate(tracks)
        for start in range(0, max(track.num_samples - segment_samples, 0) + 1, segment_samples)
    ]
    num_segments = min(num_segments, len(positions))
    if num_segments % num_devices:
        remedy = num_segments - num_segments % num_devices
        raise UserError(
            f"{num_segments} validation segments cannot be shared by {num_devices} devices; "
            + (f"give --validation-segments {remedy}" if remedy else "give longer songs, or fewer --devices")
        )
    if num_devices > 1:
        sizes = range(num_devices, max(batch_size, num_devices) + 1, num_devices)
        batch_size = max(size for size in sizes if num_segments % size == 0)
    chosen = np.linspace(0, len(positions) - 1, num_segments).round().astype(int)
    table = tf.constant(np.array(positions, np.int64)[chosen])
    has_mixture = all(MIXTURE in track.files for track in tracks)
    names = (*stems, MIXTURE) if has_mixture else tuple(stems)

    def batches(first: int, last: int, size: int) -> tf.data.Dataset:
        read = _batch_reader(tracks, names, segment_samples, num_channels, reader)

        @NO_AUTOGRAPH
        def batch(start: tf.Tensor) -> dict[str, tf.Tensor]:
            rows = table[start : start + size]
            places = tf.tile(tf.ensure_shape(rows, [size, 2])[..., None], [1, 1, len(names)])
            audio = read(places[:, 0], places[:, 1])
            if has_mixture:
                return {"stems": audio[:, :-1], "mixture": audio[:, -1]}
            total = tf.reduce_sum(tf.cast(audio, tf.int32), axis=1)
            return {"stems": audio, "mixture": tf.cast(tf.clip_by_value(total, -(2**15), 2**15 - 1), tf.int16)}

        return tf.data.Dataset.range(first, last, size).map(batch)

    rest = len(chosen) % batch_size
    examples = batches(0, len(chosen) - rest, batch_size)
    examples = examples.concatenate(batches(len(chosen) - rest, len(chosen), rest)) if rest else examples
    return examples.prefetch(2).with_options(PLAIN)


def _batch_reader(
    tracks: Sequence[Track],
    stems: Sequence[str],
    segment_samples: int,
    num_channels: int,
    reader: str,
    has_margin: bool = False,
) -> BatchReader:
    """Makes a reader of int16 `[batch_size, num_stems, segment_samples, num_channels]`, zeros beyond a song's ends."""
    problem = None if reader == "portable" else _tfio_problem(tracks)
    if reader == "tensorflow-io" and problem:
        raise UserError(f"the tensorflow-io reader cannot be used ({problem}); choose --reader portable")
    if reader == "portable" or problem:
        return _portable_reader(tracks, stems, segment_samples, num_channels)
    return _tfio_reader(tracks, stems, segment_samples, num_channels, has_margin)


def _paths(tracks: Sequence[Track], stems: Sequence[str]) -> list[list[bytes]]:
    """The files of tracks by stem, in bytes, as a name may be no UTF-8; empty for those that a recording is not of."""
    return [[os.fsencode(track.files.get(stem, "")) for stem in stems] for track in tracks]


def _tfio_problem(tracks: Sequence[Track]) -> str | None:
    """Returns the reason why tensorflow-io cannot read, or None: its ops need the TensorFlow they were built for."""
    if not all(track.is_wav for track in tracks):
        return "not all files are 16-bit WAV"
    files = [path for track in tracks for path in track.files.values()]
    if other := next((path for path in files if not is_plain_wav(path)), None):
        return f"{other} has chunks that it does not read"
    try:
        import tensorflow_io
    except ImportError:
        return "tensorflow-io is not installed; it has no wheels for this Python or system"
    try:
        tensorflow_io.audio.AudioIOTensor(tf.constant(os.fsencode(files[0])), dtype=tf.int16)
    except (NotImplementedError, AttributeError):
        return f"tensorflow-io {tensorflow_io.__version__} does not load with TensorFlow {tf.__version__}"
    return None


def _tfio_reader(
    tracks: Sequence[Track], stems: Sequence[str], segment_samples: int, num_channels: int, has_margin: bool
) -> BatchReader:
    """Reads inside the graph, in parallel and without Python's lock.

    tensorflow-io keeps an open file in a resource named after its op. Were one op run for two files at once, as by
    a `map` with parallel calls or by two data sets with ops of one name, samples of one file would now and then come
    out as the other's. So every file of a batch has an op of its own, and every reader a scope of its own.
    """
    import tensorflow_io

    paths = tf.constant(_paths(tracks, stems))
    scope = f"reader_{next(_scopes)}"
    same_channels = all(track.channel_counts == {num_channels} for track in tracks)

    # Padding copies, even by nothing: without margins and songs that are too short it is left out.
    inside = not has_margin and all(track.num_samples >= segment_samples for track in tracks)

    def read_file(path: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
        before = tf.maximum(-start, 0)
        samples = tensorflow_io.audio.AudioIOTensor(path, dtype=tf.int16)[start + before : start + segment_samples]
        samples = tf.ensure_shape(samples, [None, num_channels if same_channels else None])
        if not same_channels:
            samples = tf.numpy_function(lambda array: match_channels(array, num_channels), [samples], tf.int16)
        if not inside:
            after = segment_samples - before - tf.shape(samples, tf.int64)[0]
            samples = tf.pad(samples, [[before, after], [0, 0]])
        return tf.ensure_shape(samples, [segment_samples, num_channels])

    def read(tracks: tf.Tensor, starts: tf.Tensor) -> tf.Tensor:
        with tf.name_scope(scope):
            files = [
                read_file(paths[tracks[row, column], column], starts[row, column])
                for row in range(starts.shape[0])
                for column in range(len(stems))
            ]
            return tf.reshape(tf.stack(files), [-1, len(stems), segment_samples, num_channels])

    return read


def _portable_reader(
    tracks: Sequence[Track], stems: Sequence[str], segment_samples: int, num_channels: int
) -> BatchReader:
    """Reads in Python, a whole batch in one call: WAV as it lies on the disk, FLAC by libsndfile."""
    import soundfile

    paths = _paths(tracks, stems)
    # Raw bytes are samples only of a WAV that needs no mixing of channels.
    offsets = [
        [wav_data_offset(path) if path else 0 for path in row]
        if track.is_wav and track.channel_counts == {num_channels}
        else None
        for track, row in zip(tracks, paths, strict=True)
    ]

    def read_numpy(rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
        _reads["begun"] += 1
        try:
            return read_batch(rows, starts)
        finally:
            _reads["ended"] += 1

    def read_batch(rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
        batch = np.zeros((*rows.shape, segment_samples, num_channels), np.int16)
        for index, column in np.ndindex(rows.shape):
            row, start = int(rows[index, column]), int(starts[index, column])
            path, first, last = paths[row][column], max(start, 0), min(start + segment_samples, tracks[row].num_samples)
            target = batch[index, column, first - start : last - start]
            if offsets[row]:
                with open(path, "rb", buffering=0) as file:
                    file.seek(offsets[row][column] + first * target.strides[0])
                    file.readinto(target)
            else:
                # Damage in its middle shows here first.
                with decoding(os.fsdecode(path)):
                    samples, _ = soundfile.read(path, start=first, stop=last, dtype="int16", always_2d=True)
                target[: len(samples)] = match_channels(samples, num_channels)
        return batch

    def read(rows: tf.Tensor, starts: tf.Tensor) -> tf.Tensor:
        shape = [starts.shape[0], len(stems), segment_samples, num_channels]
        return tf.ensure_shape(tf.numpy_function(read_numpy, [rows, starts], tf.int16), shape)

    return read


@atexit.register
def _let_prefetching_end() -> None:
    """Waits until no batch is being read ahead.

    A call that begins when Python is ending waits for Python's lock for ever, and TensorFlow for the call.
    """
    seen = None
    while seen != _reads["ended"] or _reads["begun"] != _reads["ended"]:
        seen = _reads["ended"]
        time.sleep(0.05)
