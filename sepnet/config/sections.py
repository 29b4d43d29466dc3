"""Everything that a run depends on: frozen dataclasses, from which the flags, the JSON and the checks follow.

A field's `option(...)` gives its default, its help text and its range. Nothing here imports TensorFlow.
"""

import argparse
import dataclasses
import importlib.resources
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.errors import UserError

DOWNSAMPLINGS = ("decimate", "filtered", "strided", "pooled", "max_pooled")
UPSAMPLINGS = ("linear", "learned", "transposed")
NORMALIZATIONS = ("none", "batch", "group")
ACTIVATIONS = ("leaky_relu", "relu", "elu")
OUTPUTS = ("direct", "difference", "mask", "softmax_mask")
FORMS = ("blocks", "jansson", "spleeter")
# The other forms have one convolution, strided or transposed, in each level.
BLOCK_OPTIONS = ("convolutions", "downsampling", "upsampling", "upsampling_kernel_size")
LOSSES = ("mse", "l1", "magnitude_mse", "magnitude_l1", "multi_resolution_stft")
# No song is longer than a day, and no sound card is faster than this.
MOST_SECONDS, MOST_HZ = 86_400.0, 1_536_000
PRESETS = importlib.resources.files("sepnet.config") / "presets"


def option(
    default: Any, help: str, *, choices: tuple = (), at_least: float | None = None, at_most: float | None = None
):
    """A config field: its default, help text and the values that it takes."""
    return dataclasses.field(
        default=default, metadata={"help": help, "choices": choices, "at_least": at_least, "at_most": at_most}
    )


def other_default(base: type, name: str, default: Any):
    """The field of a base class with another default."""
    return dataclasses.field(default=default, metadata=base.__dataclass_fields__[name].metadata)


class Section:
    """Checks every field of a dataclass against the range in its `option`."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None:
                _check(field, value)


@dataclasses.dataclass(frozen=True)
class Data(Section):
    """What is read, and how it is cut."""

    data: str | None = option(
        None, "folder of songs, or musdb18-7s to download that preview (default: the demo songs, made on first use)"
    )
    sources: tuple[str, ...] = option(
        ("vocals", "drums", "bass", "other"),
        "names of the sources, with commas; one may be a sum of stems: vocals,accompaniment=drums+bass+other",
    )
    sample_rate: int | None = option(
        None, "Hz; songs of another rate are converted once (default: theirs)", at_least=1, at_most=MOST_HZ
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
        named = (source.partition("=") for source in self.sources)
        return {name: tuple(stems.split("+")) if equals else (name,) for name, equals, stems in named}

    @property
    def stems(self) -> tuple[str, ...]:
        """The stems that a song must hold, in the order of the sources."""
        return tuple(stem for stems in self.parts.values() for stem in stems)

    def segment_samples(self, sample_rate: int) -> int:
        """The length of a training segment in samples, at a rate in Hz."""
        return round(self.segment_seconds * sample_rate)


@dataclasses.dataclass(frozen=True)
class Unet(Section):
    """What the U-Nets of either rank have in common."""

    depth: int = option(6, "number of down/up levels", at_least=1)
    base_filters: int = option(24, "filters of the first level", at_least=1)
    filter_growth: str = option("add", "filters of deeper levels: base added or doubled", choices=("add", "double"))
    down_kernel_size: int = option(15, "kernel of the way down", at_least=1)
    up_kernel_size: int = option(5, "kernel of the way up", at_least=1)
    convolutions: int = option(1, "convolutions in each block", at_least=1)
    downsampling: str = option("decimate", "how a level halves its axes", choices=DOWNSAMPLINGS)
    upsampling: str = option("linear", "how a level doubles its axes", choices=UPSAMPLINGS)
    upsampling_kernel_size: int | None = option(
        None, "kernel of transposed upsampling (default: that of the way up)", at_least=1
    )
    normalization: str = option("none", "normalisation after each convolution", choices=NORMALIZATIONS)
    activation: str = option("leaky_relu", "activation after each convolution", choices=ACTIVATIONS)
    up_activation: str | None = option(None, "activation on the way up (default: the same)", choices=ACTIVATIONS)
    dropout: float = option(0.0, "share of features dropped on the way up", at_least=0.0, at_most=0.9)
    separate_networks: bool = option(False, "a network of its own for each source, instead of one for all")
    recompute: bool = option(False, "save memory: compute activations again for the gradient instead of keeping them")
    output: str = option(
        "direct",
        "stems as they come, the last source as the mixture less the others, or masks on the mixture",
        choices=OUTPUTS,
    )


@dataclasses.dataclass(frozen=True)
class Unet1D(Unet):
    """U-Net on the waveform (Stoller, Ewert, Dixon 2018)."""

    padding: str = option("zero", "pad with zeros, or with what lies around a segment", choices=("zero", "context"))

    def largest_depth(self, num_samples: int) -> int:
        """The largest depth that leaves the bottleneck a sample of a segment."""
        return max(num_samples, 1).bit_length() - 1


@dataclasses.dataclass(frozen=True)
class Unet2D(Unet):
    """U-Net on the magnitudes of the STFT (Jansson et al. 2017)."""

    depth: int = other_default(Unet, "depth", 5)
    base_filters: int = other_default(Unet, "base_filters", 12)
    filter_growth: str = other_default(Unet, "filter_growth", "double")
    down_kernel_size: int = other_default(Unet, "down_kernel_size", 3)
    up_kernel_size: int = other_default(Unet, "up_kernel_size", 3)
    downsampling: str = other_default(Unet, "downsampling", "pooled")
    normalization: str = other_default(Unet, "normalization", "batch")
    output: str = other_default(Unet, "output", "softmax_mask")
    form: str = option(
        "blocks",
        "levels are blocks of convolutions, or one strided convolution down and one transposed up, as in Jansson's and "
        "Spleeter's networks",
        choices=FORMS,
    )
    magnitudes: str = option(
        "log", "the network sees logarithms and the height in frequency, or plain magnitudes", choices=("log", "linear")
    )
    frame_length: int = option(1024, "STFT window in samples", at_least=4)
    frame_step: int = option(256, "samples from one STFT frame to the next", at_least=1)
    num_bins: int | None = option(
        None, "lowest STFT bins that the network sees; those above take the mask of the last (default: all)", at_least=2
    )
    num_mel_bands: int | None = option(None, "mel bands to work on (default: the bins of the STFT)", at_least=2)
    wiener: bool = option(False, "let the estimates share the mixture in proportion to their powers")

    def __post_init__(self):
        super().__post_init__()
        changed = [name for name in BLOCK_OPTIONS if getattr(self, name) != self.__dataclass_fields__[name].default]
        if self.form != "blocks" and changed:
            raise UserError(f"{_flag(changed[0])} has no effect with --form {self.form}; leave out one of the two")

    def largest_depth(self, num_samples: int) -> int:
        """The largest depth that leaves the bottleneck a frame and a bin of a segment."""
        num_frames = max(num_samples // self.frame_step, 1)
        return min(num_frames, self.num_mel_bands or self.num_bins or self.frame_length // 2).bit_length() - 1


@dataclasses.dataclass(frozen=True)
class Training(Section):
    """How the weights are found."""

    epochs: int = option(8, "epochs; validation and checkpoints come after each", at_least=1)
    steps_per_epoch: int = option(50, "batches in an epoch", at_least=1)
    minutes: float | None = option(
        None, "train for so long, validation included, instead of for so many epochs", at_least=0.01
    )
    joules: float | None = option(None, "train until so much energy is spent, instead", at_least=0.01)
    batch_size: int = option(4, "segments in a batch", at_least=1)
    patience: int = option(0, "epochs without a lower val_mse after which training ends; 0: never", at_least=0)
    loss: str = option("mse", "what is minimised, on waveforms or on STFT magnitudes", choices=LOSSES)
    source_weights: tuple[float, ...] | None = option(
        None, "weight of each source in the loss, with commas (default: 1)"
    )
    learning_rate: float = option(2e-3, "Adam's step size at the start", at_least=0.0)
    schedule: str = option(
        "cosine",
        "the learning rate stays, falls to zero along a cosine, or to a tenth half-way; epoch by epoch with --minutes "
        "or --joules",
        choices=("constant", "cosine", "step"),
    )
    weight_decay: float = option(
        0.0, "share of the weights that is taken away with each unit of step size", at_least=0.0
    )
    ema: float = option(
        0.0,
        "momentum of averaged weights, which are then validated and exported; 0: none",
        at_least=0.0,
        at_most=0.9999,
    )
    accumulation: int = option(1, "batches whose gradients are added up for one update", at_least=1)
    devices: int = option(1, "GPUs of this host that every batch is split over", at_least=1)
    precision: str = option("float32", "precision of features", choices=("float32", "mixed_bfloat16", "mixed_float16"))
    xla: bool = option(False, "compile the training step with XLA; on two CPU cores it is slower than TensorFlow alone")
    remix: bool = option(True, "mix stems of different songs of the batch")
    random_gain_db: float = option(6.0, "stems are made louder or softer by up to this", at_least=0.0, at_most=120.0)
    channel_swap: bool = option(True, "exchange left and right at random")
    polarity: bool = option(True, "invert stems at random")
    seed: int = option(0, "seed of weights, segments and augmentation", at_least=0, at_most=2**32 - 1)


FAMILIES: dict[str, type[Section]] = {"unet_1d": Unet1D, "unet_2d": Unet2D}
DEFAULT_FAMILY = "unet_2d"


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run: what is read, which model, and how it is trained."""

    data: Data = dataclasses.field(default_factory=Data)
    model: Unet1D | Unet2D = dataclasses.field(default_factory=Unet2D)
    training: Training = dataclasses.field(default_factory=Training)

    @property
    def family(self) -> str:
        """Name of the model's family."""
        return next(name for name, section in FAMILIES.items() if isinstance(self.model, section))

    def largest_depth(self, sample_rate: int) -> int:
        """The largest depth that a training segment has room for, at a rate in Hz."""
        return self.model.largest_depth(self.data.segment_samples(sample_rate))

    def check_depth(self, sample_rate: int, depth: int | None = None) -> None:
        """Refuses a depth, by default the config's, that a training segment has no room for.

        Raises:
            UserError: the depth is too large; the message names the largest that fits.
        """
        largest, depth = self.largest_depth(sample_rate), depth or self.model.depth
        if depth > largest:
            raise UserError(
                f"depth {depth} does not fit a segment of {self.data.segment_seconds} s at {sample_rate} Hz: the "
                f"largest depth of {self.family} is {largest}; lower the depth or raise --segment-seconds"
            )

    def to_json(self) -> str:
        """The whole config as indented JSON."""
        return json.dumps({"family": self.family, **dataclasses.asdict(self)}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """Reads what `to_json` wrote.

        Raises:
            UserError: a key that nothing reads, an unknown family, or a value out of range.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise UserError(f"the config is not JSON ({error})") from error
        return cls.from_values(values)

    @classmethod
    def from_values(cls, values: Any) -> "Config":
        """Makes a config from what `json.loads` gives; errors as of `from_json`."""
        _refuse_other_than_object(values, "the config")
        values = dict(values)
        model = family_section(values.pop("family", DEFAULT_FAMILY))
        sections = {"data": Data, "model": model, "training": Training}
        _refuse_unknown(values, sections, "the config")
        return cls(**{name: section_from(section, values.get(name, {})) for name, section in sections.items()})


def family_section(name: str) -> type[Section]:
    """The config section of a model family.

    Raises:
        UserError: no such family; the message lists those there are.
    """
    if name not in FAMILIES:
        raise UserError(f"unknown family {name!r}; choose one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


def section_from(section: type[Section], values: Mapping[str, Any]) -> Section:
    """Makes a section from plain values, as JSON holds them.

    Raises:
        UserError: a key that nothing reads, or a value out of range.
    """
    _refuse_other_than_object(values, section.__name__)
    _refuse_unknown(values, section.__dataclass_fields__, section.__name__)
    # JSON knows no tuples.
    return section(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def preset_names() -> list[str]:
    """Names of the published networks that `--preset` knows."""
    return sorted(path.name.removesuffix(".json") for path in PRESETS.iterdir() if path.name.endswith(".json"))


def read_preset(name: str) -> Config:
    """The config of a published network.

    Raises:
        UserError: no such preset; the message lists those there are.
    """
    if name not in preset_names():
        raise UserError(f"unknown preset {name!r}; choose one of {', '.join(preset_names())}")
    values = json.loads((PRESETS / f"{name}.json").read_text())
    # For whoever opens the file: where the values are from, and what differs.
    del values["about"]
    return Config.from_values(values)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Gives a parser one flag for each field of a `Config`, and `--preset`."""
    presets = f"begin with a published network, which other flags then change: {', '.join(preset_names())}"
    parser.add_argument("--preset", default=argparse.SUPPRESS, metavar="NAME", help=presets)
    families = f"model family: {', '.join(FAMILIES)} [{DEFAULT_FAMILY}]"
    parser.add_argument("--family", default=argparse.SUPPRESS, metavar="NAME", help=families)
    for section in (Data, Training):
        _add_section(parser, {section.__name__.lower(): section})
    _add_section(parser, FAMILIES)


def config_from_flags(arguments: argparse.Namespace) -> Config:
    """Makes the config that a command line asks for.

    Raises:
        UserError: an unknown family or preset, a flag that is not the family's, or a value out of range.
    """
    given = vars(arguments)
    preset = read_preset(given["preset"]) if "preset" in given else None
    family = given.get("family", preset.family if preset else DEFAULT_FAMILY)
    model = family_section(family)
    if preset and family != preset.family:
        raise UserError(f"--preset {given['preset']} is a {preset.family}, not a {family}; leave out one of the two")
    others = {name for section in FAMILIES.values() for name in section.__dataclass_fields__}
    stray = sorted(name for name in others - set(model.__dataclass_fields__) if name in given)
    if stray:
        raise UserError(f"{_flag(stray[0])} is no option of {family}; see --help for the options of each family")
    sections = vars(preset or Config(model=model()))
    return Config(
        **{
            key: dataclasses.replace(section, **{name: given[name] for name in _names(section) if name in given})
            for key, section in sections.items()
        }
    )


def add_flags_of(parser: argparse.ArgumentParser, section: type[Section], names: Sequence[str]) -> None:
    """Gives a parser the flags of some fields of a section."""
    _add_section(parser, {section.__name__.lower(): section}, names)


def section_from_flags(section: type[Section], arguments: argparse.Namespace) -> Section:
    """Makes a section from what `add_flags_of` has put into a command line.

    Raises:
        UserError: a value out of range.
    """
    given = vars(arguments)
    return section(**{name: given[name] for name in section.__dataclass_fields__ if name in given})


def refuse_config_flags(arguments: argparse.Namespace, reason: str) -> None:
    """Raises a `UserError` if a flag of the config was given where the config comes from elsewhere."""
    known = {name for section in (Data, Training, *FAMILIES.values()) for name in section.__dataclass_fields__}
    given = sorted(name for name in vars(arguments) if name in known | {"family", "preset"})
    if given:
        raise UserError(f"{reason}; leave out {', '.join(map(_flag, given))}")


def _names(section: Section) -> list[str]:
    return [field.name for field in dataclasses.fields(section)]


def _add_section(
    parser: argparse.ArgumentParser, sections: Mapping[str, type[Section]], names: Sequence[str] | None = None
) -> None:
    """Adds a group of flags; a field that several families share becomes one flag that names each default.

    Of the fields, None takes all `names`.
    """
    group = parser.add_argument_group(" and ".join(sections))
    fields: dict[str, dict[str, dataclasses.Field]] = {}
    for name, section in sections.items():
        for field in dataclasses.fields(section):
            if names is not None and field.name not in names:
                continue
            fields.setdefault(field.name, {})[name] = field
    for name, by_section in fields.items():
        field = next(iter(by_section.values()))
        defaults = {section: _shown(field.default) for section, field in by_section.items()}
        shown = next(iter(defaults.values())) if len(set(defaults.values())) == 1 else _shown_each(defaults)
        only = f"; {' and '.join(by_section)} only" if len(by_section) < len(sections) else ""
        choices = f" ({', '.join(map(str, field.metadata['choices']))})" if field.metadata["choices"] else ""
        default = "" if field.default is None else f" [{shown}{only}]"
        text = f"{field.metadata['help']}{choices}{default}".replace("%", "%%")
        kind = _kind(field)
        if kind is bool:
            group.add_argument(_flag(name), action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        else:
            convert, metavar = (_list_of(_item_kind(field)), "A,B,...") if kind is tuple else (kind, kind.__name__)
            group.add_argument(_flag(name), type=convert, default=argparse.SUPPRESS, metavar=metavar, help=text)


def _list_of(kind: type):
    def values(text: str) -> tuple:
        return tuple(kind(value.strip()) for value in text.split(","))

    return values


def _shown(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _shown_each(defaults: Mapping[str, str]) -> str:
    return ", ".join(f"{section} {value}" for section, value in defaults.items())


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _kind(field: dataclasses.Field) -> type:
    """The type of a field's values: of `int | None` it is `int`, of `tuple[str, ...]` it is `tuple`."""
    annotation = _without_none(field.type)
    return typing.get_origin(annotation) or annotation


def _item_kind(field: dataclasses.Field) -> type:
    """The type of the values in a tuple: of `tuple[str, ...]` it is `str`."""
    return typing.get_args(_without_none(field.type))[0]


def _without_none(annotation):
    if isinstance(annotation, types.UnionType):
        return next(kind for kind in typing.get_args(annotation) if kind is not type(None))
    return annotation


def _check(field: dataclasses.Field, value: Any) -> None:
    kind, limits, flag = _kind(field), field.metadata, _flag(field.name)
    if not isinstance(value, (int, float) if kind is float else kind) or (kind is not bool and isinstance(value, bool)):
        raise UserError(f"{flag} takes a {kind.__name__}, not {value!r}")
    if kind is str and not value.strip():
        raise UserError(f"{flag} is empty; leave it out, or give it a value")
    if kind is float and not math.isfinite(value):
        raise UserError(f"{flag} is {value}; it must be a finite number")
    if limits["choices"] and value not in limits["choices"]:
        raise UserError(f"{flag} is {value!r}; choose one of {', '.join(map(str, limits['choices']))}")
    if limits["at_least"] is not None and not value >= limits["at_least"]:
        raise UserError(f"{flag} is {value}; it must be at least {limits['at_least']}")
    if limits["at_most"] is not None and not value <= limits["at_most"]:
        raise UserError(f"{flag} is {value}; it must be at most {limits['at_most']}")
    if field.name == "sources" and not _are_sources(value):
        raise UserError(
            f"{flag} is {','.join(map(str, value))!r}; name two or more different sources, with commas; each may be a "
            "sum of stems, as in vocals,accompaniment=drums+bass+other"
        )
    if field.name == "source_weights" and not (
        all(isinstance(weight, (int, float)) and 0 <= weight < math.inf for weight in value) and any(value)
    ):
        raise UserError(f"{flag} is {','.join(map(str, value))}; give numbers from 0 up, not all of them 0")


def _are_sources(value: tuple) -> bool:
    """Whether these are two or more sources, no name and no stem of which comes twice."""
    if not all(isinstance(source, str) for source in value):
        return False
    names = [source.partition("=")[0] for source in value]
    stems = [stem for source in value for stem in source.rpartition("=")[2].split("+")]
    return len(names) >= 2 and all((*names, *stems)) and len(set(names)) == len(names) and len(set(stems)) == len(stems)


def _refuse_other_than_object(values: Any, where: str) -> None:
    if not isinstance(values, Mapping):
        raise UserError(f"{where} is {values!r}; expected a JSON object")


def _refuse_unknown(values: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UserError(f"{where} has no {unknown[0]!r}; it takes {', '.join(known)}")
