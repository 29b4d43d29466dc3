"""Lists the songs in a folder and the problems of each: reads headers first, then every sample."""

import collections
import contextlib
import copy
import dataclasses
import math
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from pipelines.audio import reading
from pipelines.errors import UserError
from pipelines.progress import progress_bar
from pipelines.songs.layouts import (
    MIXTURE,
    NO_SAMPLES,
    NoSongsError,
    Song,
    StemFile,
    by_stem,
    data_folder,
    find_songs,
    how_validation_was_chosen,
    mismatch,
)
from pipelines.songs.recordings import NoRecordingsError, SourceFile, find_recordings, same_content
from pipelines.songs.renames import rename_files, rename_splits, where_songs_are
from pipelines.workers import Advance, run_jobs

# Above this the stems cannot be those of the mixture. AAC alone leaves about -15 to -21 dB.
FAR_RESIDUAL_DB = -3.0
# So many samples in a row at full scale are taken for clipping; a loud song may touch it once.
CLIPPED_RUN = 3
LARGEST_16_BIT = 32767 / 32768
SMALLEST_RESIDUAL = 1e-20


@dataclasses.dataclass
class SongReport:
    """The findings about one song, or one recording.

    Attributes:
        path: the `.stem.mp4` file, or the song's folder.
        source: of a recording; "" for songs.
        sample_rates: Hz, every one that occurs.
        num_channels: every number that occurs.
        formats: containers and encodings.
        residual_db: power of the mixture less the sum of the stems, against the mixture's; None where it cannot
            be said, -200 at the least.
        problems: faults that must be mended.
        notes: findings that do no harm.
        suggestions: files to rename.
    """

    name: str
    split: str
    path: str
    source: str = ""
    seconds: float = 0.0
    sample_rates: list[int] = dataclasses.field(default_factory=list)
    num_channels: list[int] = dataclasses.field(default_factory=list)
    formats: list[str] = dataclasses.field(default_factory=list)
    residual_db: float | None = None
    problems: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    suggestions: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Report:
    """The findings about a folder of songs, or of recordings.

    Attributes:
        validation: the rule by which the validation songs were chosen.
        noun: what they are, "song" or "recording".
        problems: faults that concern more than one song.
        suggestions: steps to take, most useful first.
    """

    songs: list[SongReport]
    validation: str
    problems: list[str]
    suggestions: list[str]
    noun: str = Song.noun

    @property
    def is_good(self) -> bool:
        return not self.problems and not any(song.problems for song in self.songs)


def check_songs(root: pathlib.Path, stems: Sequence[str], *, workers: int | None = None) -> Report:
    """Reads every song under `root` from beginning to end, and reports what is there.

    Args:
        root: folder of songs, see `pipelines.songs.layouts` for the layouts; or of recordings, see
            `pipelines.songs.recordings`.
        stems: the names of the stems that every song should hold; of recordings, the folders.
        workers: processes; None takes one for each CPU core.

    Raises:
        UserError: there is no such folder, or it cannot be read.
    """
    root = data_folder(root)
    try:
        recordings = find_recordings(root, stems)
        songs = recordings or find_songs(root)
    except NoSongsError:
        return Report([], "there are no songs", [f"no songs under {root}"], where_songs_are(root))
    except NoRecordingsError as error:
        return Report([], "there are none", [str(error)], [], SourceFile.noun)
    reports, readable = {}, []
    for song in songs:
        wanted = tuple(song.files()) if recordings else tuple(stems)
        reports[song], infos = _read_headers(song, wanted)
        if infos:
            readable.append(_Listening(song, reports[song], tuple(infos), wanted))
    with (
        progress_bar("checking", total=sum(reports[job.song].seconds for job in readable), unit="s") as advance,
        contextlib.closing(run_jobs(_listen, readable, advance=advance, workers=workers)) as results,
    ):
        for job, heard in results:
            report = reports[job.song]
            if isinstance(heard, UserError):
                report.problems.append(_without_folder(heard, job.song))
            else:
                reports[job.song] = heard
    found = list(reports.values())
    if recordings:
        return _report_recordings(root, found, [job.song for job in readable])
    splits = rename_splits(root)
    problems = [f"folder {name} is not read; expected train, valid or test" for name in splits]
    suggestions = list(splits.values()) + _counted(song.suggestions for song in found)
    rates = sorted({song.sample_rates[0] for song in found if len(song.sample_rates) == 1})
    if len(rates) > 1:
        problems.append(f"songs have different sample rates: {', '.join(map(str, rates))} Hz")
        suggestions.append(f"choose one rate for all songs: --sample-rate {rates[-1]}, to train or to prepare them")
    return Report(found, how_validation_was_chosen(songs, root), problems, suggestions)


def _report_recordings(root: pathlib.Path, found: list[SongReport], readable: Sequence[SourceFile]) -> Report:
    pairs = same_content(readable)
    problems = [f"{one} and {other} are the same file as two sources" for one, other in pairs]
    suggestions = ["keep a file under one source alone"] if problems else []
    rates = collections.Counter(rate for report in found for rate in report.sample_rates)
    if len(rates) > 1:
        suggestions.append(
            f"choose one rate to train at: --sample-rate {rates.most_common(1)[0][0]} is that of the most"
        )
    is_given = any(report.name.partition("/")[0] in ("valid", "validation") for report in found)
    validation = "those in the folder valid" if is_given else "chosen by a hash of their paths"
    return Report(found, validation, problems, suggestions, SourceFile.noun)


@dataclasses.dataclass(frozen=True)
class _Listening:
    """A song to decode.

    Attributes:
        report: what is known so far.
        names: the stems that it holds, the mixture too.
        stems: the stems whose sum should be the mixture.
    """

    song: Song
    report: SongReport
    names: Sequence[str]
    stems: Sequence[str]


def _read_headers(song: Song, stems: Sequence[str]) -> tuple[SongReport, dict[str, reading.AudioInfo]]:
    """Reads a song's headers; the second result is empty where its samples cannot be compared."""
    report = SongReport(song.name, song.split, str(song.path), song.source if isinstance(song, SourceFile) else "")
    try:
        infos = song.headers(reading.measure, (*stems, MIXTURE))
    except UserError as error:
        report.problems.append(_without_folder(error, song))
        return report, {}
    missing = [stem for stem in stems if stem not in infos]
    if missing:
        report.problems.append(f"lacks {', '.join(missing)}")
        report.suggestions = rename_files(song.path, missing)
    report.seconds = max((info.num_samples / info.sample_rate for info in infos.values()), default=0.0)
    report.sample_rates = sorted({info.sample_rate for info in infos.values()})
    report.num_channels = sorted({info.num_channels for info in infos.values()})
    container = "MP4" if isinstance(song, StemFile) else None
    report.formats = sorted({f"{container or info.container} {info.encoding.upper()}" for info in infos.values()})
    problem = mismatch(infos, song.tolerance_samples)
    if report.num_channels == [1, 2]:
        report.notes.append(f"mixes mono and stereo ({by_stem(infos, 'num_channels')})")
    elif len(report.num_channels) > 1:
        problem = problem or f"stems of different numbers of channels ({by_stem(infos, 'num_channels')})"
    if problem:
        report.problems.append(f"has {problem}" if problem == NO_SAMPLES else problem)
    return report, {} if problem else infos


def _listen(job: _Listening, advance: Advance) -> SongReport:
    """Decodes a song and returns its report, with what only its samples can tell."""
    # Of a song that breaks off, the error alone is reported.
    report = copy.deepcopy(job.report)
    peaks, clipped = dict.fromkeys(job.names, 0.0), dict.fromkeys(job.names, 0)
    broken: set[str] = set()
    power = residual = 0.0
    has_sum = {MIXTURE, *job.stems} <= set(job.names)
    for block in job.song.blocks(job.names, lambda text: report.problems.append(_without_folder(text, job.song))):
        for stem, samples in block.items():
            magnitudes = np.abs(samples)
            peak = float(magnitudes.max(initial=0.0))
            if math.isfinite(peak):
                peaks[stem] = max(peaks[stem], peak)
                clipped[stem] += count_clipped(magnitudes)
            else:
                broken.add(stem)
        if has_sum and not broken:
            mixture = block[MIXTURE].astype(np.float64)
            rest = mixture - sum(block[stem] for stem in job.stems)
            # One of the two may be mono.
            power += float(np.square(np.broadcast_to(mixture, rest.shape)).sum())
            residual += float(np.square(rest).sum())
        advance(len(block[job.names[0]]) / report.sample_rates[0])
    if broken:
        report.problems.append(f"samples that are no numbers (NaN or infinite): {', '.join(sorted(broken))}")
    silent = [stem for stem, peak in peaks.items() if not peak and stem not in broken]
    if silent:
        # Of many recordings one may be.
        findings = report.notes if report.source else report.problems
        findings.append(f"silent: {', '.join(silent)}")
    if any(clipped.values()):
        counts = ", ".join(f"{stem} {count}" for stem, count in clipped.items() if count)
        report.notes.append(f"clipped (samples in runs at full scale): {counts}")
    if has_sum and not broken and power:
        report.residual_db = 10 * math.log10(max(residual / power, SMALLEST_RESIDUAL))
        # With stems left aside, the sum is not expected to be the mixture.
        if report.residual_db > FAR_RESIDUAL_DB and set(job.names) <= {MIXTURE, *job.stems}:
            report.problems.append(f"the sum of the sources is far from the mixture ({report.residual_db:.1f} dB)")
    return report


def count_clipped(magnitudes: np.ndarray) -> int:
    """Counts samples that end a run of `CLIPPED_RUN` at full scale, in `[num_samples, num_channels]`."""
    full = magnitudes >= LARGEST_16_BIT
    if len(full) < CLIPPED_RUN or not full.any():
        return 0
    return int(np.lib.stride_tricks.sliding_window_view(full, CLIPPED_RUN, axis=0).all(axis=-1).sum())


def _without_folder(error: UserError | str, song: Song) -> str:
    """An error's text without what the report says already: the song's name and folder."""
    text = str(error).removeprefix(str(song)).removeprefix(":").strip()
    return text.replace(f"{song.path.parent}/", "").replace(f"{song.name}/", "")


def _counted(suggestions: Iterable[Sequence[str]]) -> list[str]:
    """Every suggestion once, the most frequent first, with how many songs it concerns."""
    counts = collections.Counter(text for texts in suggestions for text in texts)
    return [f"{text} (in {count} songs)" if count > 1 else text for text, count in counts.most_common()]
