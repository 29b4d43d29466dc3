"""`python -m benchmarks.data`: how fast the tf.data chain reads, and what share of a training step waits for it."""

import functools
import pathlib
import time

import numpy as np

from benchmarks.report import write_json
from benchmarks.timing import median_seconds
from pipelines.errors import CommandParser, UserError, run_command
from pipelines.tables import print_table

SOURCES = ("vocals", "drums", "bass", "other")
SONG_SECONDS, NUM_SONGS, SAMPLE_RATE = 60.0, 8, 44_100
SEGMENT_SAMPLES, BATCH_SIZE, NUM_BATCHES, REPEATS = 32_768, 8, 250, 5
TRAINING_STEPS = 12
RESULT = pathlib.Path("benchmarks/results/data.json")


def main(argv=None) -> None:
    """Runs the benchmark."""
    CommandParser(prog="python -m benchmarks.data", description=__doc__.partition(": ")[2]).parse_args(argv)
    from pipelines.cache import cache_path
    from pipelines.copies.tracks import load_tracks
    from pipelines.demo_songs.synthesis import demo_songs_path, synthesize_songs
    from sepnet.config.config import Config
    from sepnet.models import FAMILIES, family_class

    songs = cache_path() / f"benchmark-songs-{SAMPLE_RATE}hz-{SONG_SECONDS:.0f}s-{NUM_SONGS}"
    if not songs.exists():
        counts = {"train": NUM_SONGS, "valid": 1, "test": 0}
        synthesize_songs(songs, seed=0, song_seconds=SONG_SECONDS, num_songs=counts)
    tracks = load_tracks(songs, stems=SOURCES)["train"]
    rates = reading_rates(tracks)
    plain, limit = rates["soundfile.read, as it comes"], rates["bytes alone, no decoding"]
    print_table(
        ("", "crops/s", "times plain loop", "of the bytes"),
        [(name, f"{rate:,.0f}", f"{rate / plain:.1f}", f"{rate / limit:.0%}") for name, rate in rates.items()],
        title=f"crops of {SEGMENT_SAMPLES:,} stereo samples x {len(SOURCES)} stems, median of {REPEATS} runs",
    )
    demo_tracks = load_tracks(demo_songs_path(), stems=SOURCES)
    waiting = {name: waiting_share(Config(model=family_class(name)()), demo_tracks) for name in FAMILIES}
    print_table(
        ("", "s for a step", "waiting for data"),
        [(name, f"{seconds:.2f}", f"{share:.2%}") for name, (seconds, share) in waiting.items()],
        title="training on the demo songs, defaults",
    )
    write_json(
        RESULT, {"crops_per_second": rates, "waiting_share": {name: share for name, (_, share) in waiting.items()}}
    )


def reading_rates(tracks) -> dict[str, float]:
    """Crops for a second: the chain with either reader, plain loops over the same crops, and their bytes alone."""
    from pipelines.audio.wav import wav_data_offset
    from pipelines.batches.dataset import READERS, training_batches

    options = {"stems": SOURCES, "segment_samples": SEGMENT_SAMPLES, "num_channels": 2, "seed": 0}
    iterators = {}
    for reader in READERS[1:]:
        try:
            iterators[reader] = iter(training_batches(tracks, batch_size=BATCH_SIZE, reader=reader, **options))
        except UserError as error:
            print(f"not measured: {error}")

    def chain(batches) -> None:
        for _ in range(NUM_BATCHES):
            next(batches)

    # The chain says nowhere where its crops begin; these are drawn in the same way.
    generator = np.random.default_rng(0)
    crops = [
        ([str(track.files[source]) for source in SOURCES], int(generator.integers(track.num_samples - SEGMENT_SAMPLES)))
        for track in generator.choice(np.array(tracks, dtype=object), NUM_BATCHES * BATCH_SIZE // 2)
    ]
    offset = wav_data_offset(crops[0][0][0])

    def loop(dtype: str) -> None:
        import soundfile

        for paths, start in crops:
            np.stack([soundfile.read(path, SEGMENT_SAMPLES, start, dtype=dtype)[0] for path in paths])

    def bytes_alone() -> None:
        for paths, start in crops:
            for path in paths:
                with open(path, "rb", buffering=0) as file:
                    file.seek(offset + 4 * start)
                    file.read(4 * SEGMENT_SAMPLES)

    num_crops = NUM_BATCHES * BATCH_SIZE
    runs = {
        **{f"chain, {reader}": (functools.partial(chain, each), num_crops) for reader, each in iterators.items()},
        "soundfile.read, int16": (functools.partial(loop, "int16"), len(crops)),
        "soundfile.read, as it comes": (functools.partial(loop, "float64"), len(crops)),
        "bytes alone, no decoding": (bytes_alone, len(crops)),
    }
    return {name: count / median_seconds(run, REPEATS) for name, (run, count) in runs.items()}


def waiting_share(config, tracks) -> tuple[float, float]:
    """Median seconds of a training step, and the share of all steps' time that passes until the batch is there."""
    import keras

    from pipelines.batches.dataset import training_batches
    from sepnet.training.trainer import Trainer

    sample_rate = tracks["train"][0].sample_rate
    trainer = Trainer(config.build(sample_rate), SOURCES)
    trainer.compile(optimizer=keras.optimizers.Adam())
    batches = iter(
        training_batches(
            tracks["train"],
            stems=SOURCES,
            segment_samples=config.data.segment_samples(sample_rate),
            num_channels=config.data.num_channels,
            batch_size=config.training.batch_size,
            seed=0,
        )
    )
    waits, steps = [], []
    for _ in range(TRAINING_STEPS):
        begin = time.perf_counter()
        batch = next(batches)
        arrived = time.perf_counter()
        trainer.train_on_batch(batch)
        waits.append(arrived - begin)
        steps.append(time.perf_counter() - begin)
    # The first steps trace and compile.
    return float(np.median(steps[2:])), float(np.sum(waits[2:]) / np.sum(steps[2:]))


if __name__ == "__main__":
    run_command(main)
