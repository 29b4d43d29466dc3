"""`python -m sepnet.separate IN... -o OUT`: writes the stems of songs: files, whole folders, or a stream."""

import argparse
import contextlib
import dataclasses
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

from pipelines.errors import CommandParser, UserError, run_command
from sepnet.song_files import STREAM, SongFile, check_template, named_songs
from sepnet.stem_files import FORMAT_NAMES, MIXTURE, OPUS_RATES, STEM_MP4

VOCALS = "vocals"
KARAOKE = "karaoke"
RESIDUAL = "residual"


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What is written of a song.

    Attributes:
        stems: of the model's sources.
        template: path of a file below the output folder, without suffix; `{song}`, `{stem}` and `{model}` stand in it.
        format_name: one of `sepnet.stem_files.FORMAT_NAMES`.
        karaoke: the sum of all sources but the vocals, too.
        residual: what is left of the song when all that is written is taken away, too.
    """

    stems: tuple[str, ...]
    template: str = "{stem}"
    format_name: str = "wav"
    karaoke: bool = False
    residual: bool = False

    @property
    def names(self) -> list[str]:
        """All that is written, in order."""
        return [*self.stems, *[KARAOKE] * self.karaoke, *[RESIDUAL] * self.residual]

    def paths(self, song: str, model: str) -> list[str]:
        """Where they go, below the output folder."""
        stems = [""] if self.format_name == STEM_MP4 else self.names
        names = [self.template.format(song=song, stem=stem, model=model) for stem in stems]
        return [f"{name}.{self.format_name}" for name in names]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns 2 if some of several songs could not be separated.

    Raises:
        UserError: the songs, the model or the output folder cannot be used.
    """
    # Songs may stand behind options, too.
    arguments = _parser().parse_intermixed_args(argv)
    songs = named_songs(arguments.songs)
    is_one = len(songs) == 1 and not pathlib.Path(arguments.songs[0]).is_dir()
    output = arguments.output or (STREAM if arguments.songs == [STREAM] else "stems")
    one_file = arguments.format == STEM_MP4
    template = arguments.template or ("{song}" if one_file else "{stem}" if is_one else "{song}/{stem}")
    check_template(template, needs_stem=not one_file)
    if output != STREAM:
        from pipelines.files import check_writable

        check_writable(pathlib.Path(output))

    separator = _separator(arguments)
    outputs = _outputs(arguments, separator.sources, template)
    if separator.caution:
        _note(separator.caution)
    if output == STREAM:
        _separate_to_stream(separator, songs, outputs)
        return 0
    failures = separate_songs(separator, songs, pathlib.Path(output), outputs, arguments.skip_existing)
    if len(songs) == 1 and failures:
        raise failures[songs[0]]
    if failures:
        _note(f"{len(songs) - len(failures)} of {len(songs)} songs were separated; these were not:")
        for error in failures.values():
            _note(f"  {error}")
    return 2 if failures else 0


def _separator(arguments: argparse.Namespace):
    from sepnet.separator import Separator

    if arguments.server:
        from sepnet.client import RemoteModel

        return Separator(RemoteModel(arguments.server, arguments.model, arguments.token))
    if arguments.token:
        raise UserError("--token is for a server; name that by --server")
    from sepnet.export import newest_model

    return Separator(arguments.model or newest_model(pathlib.Path("saved_models")))


def separate_songs(
    separator, songs: Sequence[SongFile], output: pathlib.Path, outputs: Outputs, skip_existing: bool = False
) -> dict[SongFile, UserError]:
    """Separates songs one after the other, with a progress bar, and prints the files that were written.

    Each stem is as long as its song, at its rate and with its channels. Where one would exceed full scale, all stems of
    the song are made softer by one common gain.

    Args:
        separator: `sepnet.separator.Separator`.
        songs: any files that libsndfile or PyAV reads.
        output: folder, made if it is not there; what is there is replaced when a whole song is done.
        outputs: what is written.
        skip_existing: songs are left out if all their files are there.

    Returns:
        The songs that could not be separated, of which nothing was written, and why.
    """
    from pipelines.audio import is_pipe, probe
    from pipelines.progress import progress_bar

    targets = {song: [output / path for path in outputs.paths(song.name, separator.model.name)] for song in songs}
    if skip_existing:
        songs = [song for song in songs if not all(target.exists() for target in targets[song])]
    seconds, failures = {}, {}
    for song in songs:
        try:
            info = probe(song.path) if song.path and not is_pipe(song.path) else None
            seconds[song] = info.num_samples / info.sample_rate if info else 0.0
        except UserError as error:
            failures[song] = error
    with progress_bar("separating", total=sum(seconds.values()), unit="s of audio") as advance:
        for song in seconds:
            advance(0, song.name)
            try:
                _separate_song(separator, song, output, targets[song], outputs, advance)
            except UserError as error:
                failures[song] = error if str(song) in str(error) else UserError(f"{song}: {error}")
            else:
                print(*targets[song], sep="\n", flush=True)
    return failures


def _separate_song(separator, song, output, targets, outputs: Outputs, advance: Callable[..., None]) -> None:
    """Writes a song's files, all of them or none."""
    import numpy as np

    from pipelines.files import working_folder
    from sepnet.stem_files import StemFiles, check_format

    with _reading(song) as (info, blocks):
        check_format(outputs.format_name, info.sample_rate, info.num_channels)
        _note_rates(separator, song, info.sample_rate, outputs)
        names = [MIXTURE, *outputs.names] if outputs.format_name == STEM_MP4 else outputs.names
        with working_folder(output) as folder:
            with StemFiles(folder, info, names) as files:
                for stems in _separate(separator, info, blocks, outputs):
                    files.write(stems)
                    advance(len(stems[names[-1]]) / info.sample_rate)
                written, gain = files.finish(outputs.format_name)
            if gain < 1:
                _note(f"{song}: all stems are {-20 * np.log10(gain):.1f} dB softer, since one would exceed full scale")
            for path, target in zip(written, targets, strict=True):
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)


def _separate_to_stream(separator, songs: Sequence[SongFile], outputs: Outputs) -> None:
    from sepnet.stem_files import stream_wav

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
    from sepnet.sample_streams import Echo

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
    from pipelines.audio import open_audio

    with open_audio(song.path or sys.stdin.buffer, str(song)) as recording:
        yield recording.info, recording.blocks()
        if recording.remarks():
            _note(f"{song}: {recording.remarks()}")


def _outputs(arguments: argparse.Namespace, sources: Sequence[str], template: str) -> Outputs:
    stems = tuple(arguments.stems.split(",")) if arguments.stems else () if arguments.karaoke else tuple(sources)
    for stem in stems:
        if stem not in sources:
            raise UserError(f"the model has no stem {stem!r}; choose from {', '.join(sources)}")
    if arguments.karaoke and VOCALS not in sources:
        raise UserError(f"--karaoke leaves the vocals out, and the model knows {', '.join(sources)}; take --stems")
    return Outputs(stems, template, arguments.format, arguments.karaoke, arguments.residual)


def _note_rates(separator, song: SongFile, sample_rate: int, outputs: Outputs) -> None:
    if sample_rate > separator.sample_rate:
        _note(
            f"{song}: {separator.model.name} works at {separator.sample_rate} Hz, "
            f"so the stems hold nothing above {separator.sample_rate // 2} Hz"
        )
    if outputs.format_name == "opus" and sample_rate not in OPUS_RATES:
        _note(f"{song}: Opus knows no {sample_rate} Hz, so the files are at {OPUS_RATES[-1]} Hz")


def _note(text: str) -> None:
    # The standard output is for results: paths, or sound.
    print(text, file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m sepnet.separate", description=__doc__.partition(": ")[2], allow_abbrev=False)
    parser.add_argument(
        "songs", nargs="+", metavar="IN", help="file that libsndfile or PyAV reads, folder, or - for the standard input"
    )
    parser.add_argument("--model", help="saved_models/NAME, or a server's model [the one exported last; the only one]")
    parser.add_argument("--server", metavar="URL", help="let a server's model do it, sepnet's or TensorFlow Serving")
    parser.add_argument("--token", help="that the server asks for (default: what the variable SEPNET_TOKEN says)")
    parser.add_argument(
        "-o", "--output", metavar="OUT", help="folder for the stems, or - for the standard output [stems; - with IN -]"
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
