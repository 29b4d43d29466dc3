"""`python -m sepnet.separate SONG -o OUT`: one file for each stem of a song."""

import argparse
import contextlib
import pathlib
import tempfile
from collections.abc import Iterator, Sequence

from pipelines.errors import CommandParser, UserError, run_command

# Encodings of a song that its stems keep; stems of all others, lossy ones among them, are 16-bit PCM.
KEPT_ENCODINGS = ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
FLOAT_ENCODINGS = ("FLOAT", "DOUBLE")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command.

    Raises:
        UserError: the song, the model or the output folder cannot be used.
    """
    arguments = _parser().parse_args(argv)
    from pipelines.files import check_writable

    check_writable(arguments.output)

    from sepnet import export
    from sepnet.separator import Separator

    separator = Separator(arguments.model or export.newest_model(pathlib.Path("saved_models")))
    written = separate_file(separator, arguments.song, arguments.output)
    for path in written:
        print(path)


def separate_file(separator, song: pathlib.Path, output: pathlib.Path) -> list[pathlib.Path]:
    """Writes one WAV for each source into a folder, each as long as the song, at its rate and with its channels.

    Where a stem would exceed full scale, all stems are made softer by one common gain.

    Args:
        separator: `sepnet.separator.Separator`.
        song: any file that libsndfile or PyAV reads.
        output: folder, made if it is not there; a file that is there is replaced when the whole song is done.

    Returns:
        The files, in the order of the model's sources.
    """
    import numpy as np

    from pipelines import audio

    info = audio.probe(song)
    encoding = info.encoding if info.encoding in KEPT_ENCODINGS else "PCM_16"
    if info.sample_rate > separator.sample_rate:
        print(
            f"{separator.model.name} works at {separator.sample_rate} Hz: "
            f"the stems hold nothing above {separator.sample_rate // 2} Hz"
        )
    if not separator.is_exact:
        print(separator.caution)
    peak = 0.0
    with _writing(output) as folder:
        with contextlib.ExitStack() as stack:
            # The gain is known only at the end, so the stems wait as floats.
            files = {
                source: stack.enter_context(_new_wav(folder / f"{source}.float", info, "FLOAT"))
                for source in separator.sources
            }
            blocks = _with_progress(audio.read_blocks(song), info, song.name)
            for stems in separator.separate_blocks(blocks, info.sample_rate, info.num_channels):
                for source, block in stems.items():
                    peak = max(peak, float(np.abs(block).max(initial=0.0)))
                    files[source].write(block)
        gain = 1 / peak if peak > 1 and encoding not in FLOAT_ENCODINGS else 1.0
        if gain < 1:
            print(f"all stems are {-20 * np.log10(gain):.1f} dB softer, since one would exceed full scale")
        written = [output / f"{source}.wav" for source in separator.sources]
        for path in written:
            _convert(folder / f"{path.stem}.float", folder / path.name, info, encoding, gain)
        for path in written:
            (folder / path.name).replace(path)
    return written


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m sepnet.separate", description=__doc__.partition(": ")[2], allow_abbrev=False)
    parser.add_argument("song", type=pathlib.Path, help="any file that libsndfile or PyAV reads")
    parser.add_argument("--model", type=pathlib.Path, help="saved_models/NAME (default: the one exported last)")
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True, help="folder for the stems")
    return parser


@contextlib.contextmanager
def _writing(output: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a temporary folder inside `output` that is gone afterwards, whatever happened; so is an empty `output`."""
    is_new = not output.exists()
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".separating-", dir=output) as folder:
            yield pathlib.Path(folder)
    except OSError as error:
        raise UserError(
            f"cannot write the stems to {output}: {error.strerror}; choose another folder with -o"
        ) from error
    finally:
        if is_new:
            # Stems that were written stay, and their folder with them.
            with contextlib.suppress(OSError):
                output.rmdir()


def _new_wav(path: pathlib.Path, info, encoding: str):
    import soundfile

    # RF64 is a WAV without the limit of 4 GB, and a plain WAV below it.
    return soundfile.SoundFile(path, "w", info.sample_rate, info.num_channels, encoding, format="RF64")


def _convert(source: pathlib.Path, target: pathlib.Path, info, encoding: str, gain: float) -> None:
    import soundfile

    with (
        soundfile.SoundFile(source) as reader,
        soundfile.SoundFile(target, "w", info.sample_rate, info.num_channels, encoding, format="WAV") as writer,
    ):
        for block in reader.blocks(1 << 18, dtype="float32", always_2d=True):
            writer.write(block * gain)


def _with_progress(blocks, info, name: str):
    """Passes blocks on and shows a bar in seconds of audio."""
    from pipelines.progress import progress_bar

    with progress_bar(name, total=info.num_samples / info.sample_rate, unit="s of audio") as advance:
        for block in blocks:
            yield block
            advance(len(block) / info.sample_rate)


if __name__ == "__main__":
    run_command(main)
