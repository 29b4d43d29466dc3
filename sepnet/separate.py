"""`python -m sepnet.separate IN... -o OUT`: writes the stems of songs: files, whole folders, or a stream."""

import argparse
import contextlib
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from pipelines.audio.reading import is_pipe, open_audio, probe, say
from pipelines.errors import CommandParser, UserError, one_line, run_command, unforeseen, user_path
from pipelines.files import check_writable, replace_all, working_folder
from pipelines.progress import progress_bar
from sepnet.export.write import newest_model
from sepnet.separation.outputs import KARAOKE, RESIDUAL, Outputs, check_no_input, check_template, planned_files
from sepnet.separation.remote_model import RemoteModel
from sepnet.separation.sample_streams import Echo
from sepnet.separation.separator import Separator
from sepnet.separation.song_files import STANDARD_STREAM, SongFile, named_songs
from sepnet.separation.stem_files import (
    FORMAT_NAMES,
    MIXTURE,
    OPUS_RATES,
    STEM_MP4,
    StemFiles,
    check_format,
    stream_wav,
)

VOCALS = "vocals"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns 2 if some of several songs could not be separated.

    Raises:
        UserError: the songs, the model or the output folder cannot be used.
    """
    arguments = _arguments(sys.argv[1:] if argv is None else argv)
    streamed = arguments.songs == [STANDARD_STREAM] if arguments.output is None else arguments.output == STANDARD_STREAM
    output = None if streamed else arguments.output or pathlib.Path("stems")
    songs = named_songs(arguments.songs, output)
    if STANDARD_STREAM in arguments.songs and sys.stdin is None:
        raise UserError("the standard input is closed; pipe a song into it, or name a file")
    is_one = len(songs) == 1 and not os.path.isdir(arguments.songs[0])
    one_file = arguments.format == STEM_MP4
    template = arguments.template or ("{song}" if one_file else "{stem}" if is_one else "{song}/{stem}")
    check_template(template, one_file)
    if output is None:
        _check_standard_output(songs)
    else:
        check_writable(output)

    separator = _separator(arguments)
    outputs = _outputs(arguments, separator.sources, template)
    if separator.caution:
        say(separator.caution)
    if output is None:
        _separate_to_stream(separator, songs, outputs)
        return 0
    failures = separate_songs(separator, songs, output, outputs, arguments.skip_existing)
    if len(songs) == 1 and failures:
        raise failures[songs[0]]
    if failures:
        say(f"{len(songs) - len(failures)} of {len(songs)} songs were separated; these were not:")
        for error in failures.values():
            say(f"  {error}")
    return 2 if failures else 0


def _separator(arguments: argparse.Namespace) -> Separator:
    if arguments.server is not None:
        return Separator(RemoteModel(arguments.server, arguments.model and str(arguments.model), arguments.token))
    if arguments.token is not None:
        raise UserError("--token is for a server; name that by --server")
    return Separator(newest_model(pathlib.Path("saved_models")) if arguments.model is None else arguments.model)


def _check_standard_output(songs: Sequence[SongFile]) -> None:
    """Refuses to write sound where it can do no good, before a model is loaded."""
    if sys.stdout is None:
        raise UserError("the standard output is closed; pipe it into a player or a file, or take -o FOLDER")
    if sys.stdout.isatty():
        raise UserError(
            "the standard output is a terminal, which cannot take sound; pipe it into a player or a file, or take "
            "-o FOLDER"
        )
    check_no_input([1], songs)


def separate_songs(
    separator: Separator,
    songs: Sequence[SongFile],
    output: pathlib.Path,
    outputs: Outputs,
    skip_existing: bool = False,
) -> dict[SongFile, UserError]:
    """Separates songs one after the other, with a progress bar, and prints the files that were written.

    Each stem is as long as its song, at its rate and with its channels. Where one would exceed full scale, all stems of
    the song are made softer by one common gain, but in WAV files of floats, which a song of floats gives.

    What is in the output folder is replaced when a whole song is done.

    Returns:
        The songs that could not be separated, of which nothing was written, and why. What nobody foresaw is among
        them, but for an only song.

    Raises:
        UserError: see `sepnet.separation.outputs.planned_files`; no song was read then.
    """
    targets, failures = planned_files(songs, output, outputs, separator.model.name, skip_existing)
    seconds = {song: _seconds(song) for song in targets}
    with progress_bar("separating", total=sum(seconds.values()), unit="s of audio") as advance:
        for song in seconds:
            advance(0, one_line(song.name))
            try:
                _separate_song(separator, song, output, targets[song], outputs, advance)
            except UserError as error:
                failures[song] = error if str(song) in str(error) else UserError(f"{song}: {error}")
            except MemoryError:
                failures[song] = UserError(f"{song}: there is not enough memory for it; end other programs")
            except Exception as error:
                if len(songs) == 1:
                    raise
                failures[song] = UserError(f"{song}: {unforeseen(error)}")
            else:
                print(*map(one_line, targets[song]), sep="\n", flush=True)
    return failures


def _seconds(song: SongFile) -> float:
    """Length of a song for the progress bar; 0 where it is not known yet, or never will be."""
    # A pipe can be read but once.
    if song.path is None or is_pipe(song.path):
        return 0.0
    try:
        info = probe(song.path)
    except Exception:
        # It comes again, and is told, when the song is separated.
        return 0.0
    return info.num_samples / info.sample_rate


def _separate_song(separator, song, output, targets, outputs: Outputs, advance: Callable[..., None]) -> None:
    """Writes a song's files, all of them or none."""
    with _reading(song) as (info, blocks):
        check_format(outputs.format_name, info)
        _note_rates(separator, song, info.sample_rate, outputs)
        names = [MIXTURE, *outputs.names] if outputs.format_name == STEM_MP4 else outputs.names
        with working_folder(output) as folder:
            with StemFiles(folder, info, names) as files:
                for stems in _separate(separator, info, blocks, outputs):
                    files.write(stems)
                    advance(len(stems[names[-1]]) / info.sample_rate)
                written, gain = files.finish(outputs.format_name)
            if gain < 1:
                say(f"{song}: all stems are {-20 * np.log10(gain):.1f} dB softer, since one would exceed full scale")
            replace_all(dict(zip(written, targets, strict=True)), aside=folder)


def _separate_to_stream(separator: Separator, songs: Sequence[SongFile], outputs: Outputs) -> None:
    if len(songs) > 1 or len(outputs.names) > 1 or outputs.format_name != "wav":
        raise UserError(
            f"the standard output takes one song and one stem as WAV, and this would be {len(songs)} with "
            f"{', '.join(outputs.names)} as {outputs.format_name}; take one by --stems, or files by -o FOLDER"
        )
    [song], [name] = songs, outputs.names
    with _reading(song) as (info, blocks):
        _note_rates(separator, song, info.sample_rate, outputs)
        stems = _separate(separator, info, blocks, outputs)
        stream_wav(sys.stdout.buffer, info, (block[name] for block in stems))


def _separate(separator, info, blocks: Iterable, outputs: Outputs) -> Iterator[dict]:
    """Blocks of the model's stems, and of what else is written."""
    echo = Echo(blocks) if outputs.residual or outputs.format_name == STEM_MP4 else None
    for stems in separator.separate_blocks(echo or blocks, info.sample_rate, info.num_channels):
        num_samples = len(stems[separator.sources[0]])
        if not num_samples:
            continue
        if outputs.karaoke:
            stems[KARAOKE] = sum(stem for source, stem in stems.items() if source != VOCALS)
        if echo:
            stems[MIXTURE] = echo.take(num_samples)
        if outputs.residual:
            written = [name for name in outputs.names if name != RESIDUAL]
            stems[RESIDUAL] = stems[MIXTURE] - sum(stems[name] for name in written)
        yield stems


@contextlib.contextmanager
def _reading(song: SongFile):
    """Gives a song's `AudioInfo` and its blocks, and says at the end what was lost."""
    with open_audio(song.path or sys.stdin.buffer, str(song)) as recording:
        yield recording.info, recording.blocks()
        if recording.remarks():
            say(f"{song}: {recording.remarks()}")


def _outputs(arguments: argparse.Namespace, sources: Sequence[str], template: str) -> Outputs:
    if arguments.stems is None:
        stems = () if arguments.karaoke else tuple(sources)
    else:
        stems = tuple(stem.strip() for stem in arguments.stems.split(","))
    for stem in stems:
        if stem not in sources:
            raise UserError(f"the model has no stem {stem!r}; choose from {', '.join(sources)}")
    if arguments.karaoke and (VOCALS not in sources or len(sources) == 1):
        other = "--residual" if VOCALS in sources else "--stems"
        raise UserError(f"--karaoke leaves the vocals out, and the model knows {', '.join(sources)}; take {other}")
    outputs = Outputs(stems, template, arguments.format, arguments.karaoke, arguments.residual)
    names = [*outputs.names, *[MIXTURE] * (arguments.format == STEM_MP4)]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{name} would be written twice; choose each of {', '.join(sources)} once, by --stems")
    return outputs


def _note_rates(separator, song: SongFile, sample_rate: int, outputs: Outputs) -> None:
    if sample_rate > separator.sample_rate:
        say(
            f"{song}: {separator.model.name} works at {separator.sample_rate} Hz, "
            f"so the stems hold nothing above {separator.sample_rate // 2} Hz"
        )
    if outputs.format_name == "opus" and sample_rate not in OPUS_RATES:
        say(f"{song}: Opus knows no {sample_rate} Hz, so the files are at {OPUS_RATES[-1]} Hz")


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    # Songs may stand behind options, too; the parser for that does not know that all behind -- are songs.
    argv = list(argv)
    end = argv.index("--") if "--" in argv else len(argv)
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv[:end])
    arguments.songs += argv[end + 1 :]
    if not arguments.songs:
        parser.error("the following arguments are required: IN")
    if "" in arguments.songs:
        parser.error("an empty argument behind --; leave it out, or name a file")
    return arguments


def _output(text: str) -> pathlib.Path | str:
    """The type of the output: the standard stream as it is, a folder called like that is ./-."""
    return text if text == STANDARD_STREAM else user_path(text)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m sepnet.separate", description=__doc__.partition(": ")[2], allow_abbrev=False)
    parser.add_argument(
        "songs", nargs="*", metavar="IN", help="file that libsndfile or PyAV reads, folder, or - for the standard input"
    )
    parser.add_argument(
        "--model", type=user_path, help="saved_models/NAME, or a server's model [the one exported last; the only one]"
    )
    parser.add_argument("--server", metavar="URL", help="let a server's model do it, sepnet's or TensorFlow Serving")
    parser.add_argument("--token", help="that the server asks for (default: what the variable SEPNET_TOKEN says)")
    parser.add_argument(
        "-o",
        "--output",
        type=_output,
        metavar="OUT",
        help="folder for the stems, or - for the standard output [stems; - with IN -]",
    )
    parser.add_argument("--stems", metavar="NAMES", help="which of the model's, as vocals,drums (default: all)")
    parser.add_argument("--karaoke", action="store_true", help="write all but the vocals as one file, karaoke")
    parser.add_argument("--residual", action="store_true", help="write what the written stems leave of the song, too")
    parser.add_argument("--format", choices=FORMAT_NAMES, default="wav", help="of the files [%(default)s]")
    parser.add_argument(
        "--template",
        help="path of a file in OUT, from {song}, {stem} and {model} [{stem} for one song, {song}/{stem} for more]",
    )
    parser.add_argument("--skip-existing", action="store_true", help="leave out songs whose stems are all there")
    return parser


if __name__ == "__main__":
    run_command(main)
