"""Options of the data: what is read, and how it is cut."""

import dataclasses

from pipelines.audio.wav import MOST_HZ
from pipelines.errors import one_line
from sepnet.options.fields import Section, option

# No song is longer than a day.
MOST_SECONDS = 86_400.0
# 16 bits have no room for more.
MOST_DB = 60.0


def are_sources(value: tuple) -> bool:
    """name two or more different sources, with commas, and not the mixture; each may be a sum of stems, as in \
vocals,accompaniment=drums+bass+other"""
    from pipelines.songs.layouts import MIXTURE

    if not all(isinstance(source, str) for source in value):
        return False
    names, parts = zip(*map(named_parts, value), strict=True) if value else ((), ())
    stems = [stem for part in parts for stem in part]
    is_each_once = len(set(names)) == len(names) and len(set(stems)) == len(stems)
    # A contract takes names of one line, and `mixture` is what sources are separated from.
    can_be_names = all(name and one_line(name) == name for name in (*names, *stems)) and MIXTURE not in stems
    return len(names) >= 2 and is_each_once and can_be_names


def named_parts(source: str) -> tuple[str, tuple[str, ...]]:
    """The name of a source, and the stems whose sum it is."""
    name, equals, stems = source.partition("=")
    return name, tuple(stems.split("+")) if equals else (name,)


def is_snr_range(value: str) -> bool:
    """give the lowest and the highest ratio in dB, within ±60, as in -5:20"""
    low, _, high = value.partition(":")
    try:
        return -MOST_DB <= float(low) <= float(high) <= MOST_DB
    except ValueError:
        return False


@dataclasses.dataclass(frozen=True)
class Data(Section):
    """Songs or recordings to read, and the segments cut out of them."""

    data: str | None = option(
        None,
        "folder of songs or recordings, or musdb18-7s to download that preview (default: demo songs, made once)",
    )
    sources: tuple[str, ...] = option(
        ("vocals", "drums", "bass", "other"),
        "names of the sources, with commas; one may be a sum of stems: vocals,accompaniment=drums+bass+other",
        rule=are_sources,
    )
    sample_rate: int | None = option(
        None, "Hz; songs of another rate are converted once (default: theirs)", at_least=1, at_most=MOST_HZ
    )
    snr_db: str | None = option(
        None,
        "LOWEST:HIGHEST signal-to-noise ratio at random, of the first source to the others (default: -5:20 for "
        "recordings, as they come for songs)",
        rule=is_snr_range,
    )
    num_channels: int = option(2, "audio channels of the model", choices=(1, 2))
    segment_seconds: float = option(2.0, "length of a training segment", at_least=0.01, at_most=MOST_SECONDS)
    validation_segments: int = option(48, "fixed segments that val_mse is measured on", at_least=1)
    validation_seconds: float = option(4.0, "length of a validation segment", at_least=0.01, at_most=MOST_SECONDS)
    reader: str = option("auto", "what reads the files", choices=("auto", "tensorflow-io", "portable"))
    skip_bad: bool = option(False, "leave out songs that cannot be used, instead of stopping")

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """The stems whose sum each source is, by the source's name, in the order of the sources."""
        return dict(map(named_parts, self.sources))

    @property
    def stems(self) -> tuple[str, ...]:
        """The stems that a song must hold, in the order of the sources."""
        return tuple(stem for stems in self.parts.values() for stem in stems)

    @property
    def snr_range(self) -> tuple[float, float] | None:
        """The lowest and the highest signal-to-noise ratio in dB, if they were given."""
        return None if self.snr_db is None else tuple(map(float, self.snr_db.split(":")))

    def segment_samples(self, sample_rate: int) -> int:
        """The length of a training segment in samples, at a rate in Hz."""
        return round(self.segment_seconds * sample_rate)
