"""The config: flags, JSON and checks all follow from the fields."""

import argparse
import ast
import dataclasses
import json
import pathlib
import re

import pytest

from pipelines.batches import AUGMENTATIONS
from pipelines.errors import CommandParser, UserError
from sepnet.config.config import Config
from sepnet.config.data import Data
from sepnet.config.flags import add_flags, config_from_flags
from sepnet.config.run_folder import Run
from sepnet.config.training import Training
from sepnet.models import FAMILIES, family_class
from sepnet.models.bodies.blocks import Blocks1D
from sepnet.models.bodies.jansson import Jansson
from sepnet.models.unet_1d import Unet1D
from sepnet.models.unet_2d import Unet2D

REPOSITORY = pathlib.Path(__file__).parents[2]
SECTIONS = {"data": Data, "training": Training, **{name: family_class(name) for name in FAMILIES}}
# Each with the flags that choose its section.
FIELDS = [
    (["--family", name, *["--body", body] * bool(body)] if name in FAMILIES else [], owner, field)
    for name, section in SECTIONS.items()
    for body, owner in section.classes()
    for field in owner.options().values()
]
CHANGED = Config(
    Data(data="songs", sources=("speech", "noise"), sample_rate=16_000, num_channels=1, skip_bad=True),
    Unet1D(depth=3, output="difference"),
    Training(epochs=1, learning_rate=1, remix=False, seed=7),
)


def from_flags(*flags) -> Config:
    parser = CommandParser(allow_abbrev=False)
    add_flags(parser)
    return config_from_flags(parser.parse_args(flags))


def test_no_flags_give_the_defaults():
    assert from_flags() == Config()


@pytest.mark.parametrize("config", [Config(), CHANGED])
def test_json_gives_the_config_back(config):
    text = config.to_json()
    assert Config.from_json(text) == config
    assert json.loads(text)["family"] == config.family
    # Whatever is left out of the JSON has its default.
    assert Config.from_json(json.dumps({"family": config.family})).model == type(config.model)()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modle": {}}, "no 'modle'; it takes family, data, model, training"),
        ({"data": {"sample_rat": 8000}}, "no 'sample_rat'; it takes .*sample_rate"),
        ({"model": {"frame_length": 512}}, "Blocks1D has no 'frame_length'"),
        ({"family": "unet_3d"}, "unknown family 'unet_3d'; choose one of unet_1d, unet_2d"),
        ({"training": {"epochs": "3"}}, "--epochs takes a int, not '3'"),
        ({"training": {"epochs": 1.5}}, "--epochs takes a int"),
        ({"training": {"epochs": True}}, "--epochs takes a int"),
        ({"training": {"remix": 1}}, "--remix takes a bool"),
        ({"training": {"epochs": 0}}, "--epochs is 0; it must be at least 1"),
        ({"training": {"learning_rate": float("nan")}}, "--learning-rate is nan"),
        ({"training": {"seed": -1}}, "--seed is -1"),
        ({"training": {"seed": 2**32}}, "--seed is 4294967296; it must be at most 4294967295"),
        ({"model": {"dropout": 1.0}}, "--dropout is 1.0; it must be at most 0.9"),
        ({"data": {"sources": "vocals"}}, "--sources takes a tuple"),
        ({"data": {"sources": ["vocals"]}}, "name two or more"),
        ({"data": {"sources": ["vocals", "vocals"]}}, "two or more different"),
        ({"data": {"sources": ["vocals", 3]}}, "--sources"),
        ({"data": {"sources": ["vocals", ""]}}, "--sources"),
        ({"training": {"source_weights": [1.0, float("nan")]}}, "--source-weights is '1.0,nan'"),
        ({"training": {"source_weights": [0.0, 0.0]}}, "--source-weights is '0.0,0.0'; .* not all of them 0"),
        ({"training": {"source_weights": [1.0, "2"]}}, "--source-weights"),
        ({"data": {"snr_db": "20:-5"}}, "--snr-db is '20:-5'; give the lowest and the highest ratio in dB, within ±60"),
        ({"data": {"snr_db": "-5"}}, "--snr-db is '-5'; give"),
        ({"data": {"snr_db": "nan:3"}}, "--snr-db is 'nan:3'; give"),
        ({"data": {"snr_db": "-61:0"}}, "--snr-db is '-61:0'; give"),
        ({"data": {"snr_db": "0:1:2"}}, "--snr-db is '0:1:2'; give"),
        ({"data": {"num_channels": 3}}, "--num-channels is 3; choose one of 1, 2"),
        ({"model": {"depth": 0}}, "--depth is 0"),
        ({"family": "unet_hybrid", "model": {"depht": 3}}, "UnetHybrid has no 'depht'"),
        ({"model": {"output": "masks"}}, "--output is 'masks'; choose one of direct, difference, mask, softmax_mask"),
        ({"data": 3}, "Data is 3; expected a JSON object"),
        ({"family": []}, r"unknown family \[\]; choose one of unet_1d"),
        ({"model": {"body": {"name": []}}}, r"unknown body \[\]; choose one of blocks"),
        ({"model": {"padding": []}}, "--padding takes a str"),
        ({"training": {"epochs": None}}, "--epochs takes a int, not None"),
        ({"training": {"epochs": 2**70}}, "--epochs is 1180591620717411303424; it must be a finite number of 64 bits"),
        ({"training": {"minutes": 10**400}}, "--minutes is 10+; it must be a finite number of 64 bits"),
        ({"training": {"source_weights": [10**400, 1]}}, "--source-weights is '10+,1'; give numbers from 0 up"),
    ],
)
def test_json_that_is_not_understood_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        Config.from_json(json.dumps({"family": "unet_1d", **changes}))


def test_wide_networks_on_the_waveform_learn_in_smaller_steps():
    adamw = {"optimizer": "adamw"}
    wide = Config.from_values({"family": "unet_1d", "model": {"depth": 11}, "training": adamw})
    assert wide.learning_rate == pytest.approx(2e-3 / 3)
    assert wide.changed({"depth": 3}).learning_rate == wide.changed({"depth": 1}).learning_rate == 2e-3
    assert wide.changed({"learning_rate": 0.01}).learning_rate == 0.01
    assert Config.from_values({"model": {"depth": 6}, "training": adamw}).learning_rate == 2e-3
    assert wide.changed({"optimizer": "muon"}).learning_rate == pytest.approx(8e-3 / 3)
    assert Config().learning_rate == 8e-3


def test_runs_of_before_there_was_a_choice_of_optimizers_keep_adamw_without_averages():
    values = Config().to_values()
    assert Config.from_values(values).training.optimizer == "muon"
    del values["training"]["optimizer"], values["training"]["ema"]
    old = Config.from_values(values).training
    assert (old.optimizer, old.ema) == ("adamw", 0.0)
    assert Config.from_values(values).learning_rate == 2e-3


@pytest.mark.parametrize("text", ["", "{", "[]", "3", b"{}\xff", b"[" * 100_000])
def test_text_that_is_no_config_is_refused(text, tmp_path):
    with pytest.raises(UserError, match="the config is"):
        Config.from_json(text)
    run = Run(tmp_path)
    run.config_file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match="config.json cannot be read: the config is"):
        run.config.to_json()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--family", "unet"], "unknown family 'unet'; choose one of unet_1d, unet_2d"),
        (["--frame-step", "64", "--family", "unet_1d"], "--frame-step is no option of unet_1d"),
        (["--frame-step", "64", "--family", "unet_hybrid"], "--frame-step is no option of unet_hybrid"),
        (["--body", "blocks", "--family", "unet_hybrid"], "--body is no option of unet_hybrid"),
        (["--source-weights", "1,x"], "--source-weights: invalid list of float value: '1,x'"),
        (["--sources", "a=x=b,c=x=b"], "--sources is 'a=x=b,c=x=b'"),
        (["--body", "jansson", "--upsampling", "learned"], "--upsampling is no option of unet_2d with --body jansson"),
        (["--body", "blox"], "--body is 'blox'; choose one of blocks, jansson, spleeter"),
        (["--family", "unet_1d", "--body", "spleeter"], "--body is 'spleeter'; choose one of blocks"),
        (["--depht", "3"], "unrecognized arguments: --depht"),
        (["--dep", "3"], "unrecognized arguments: --dep"),
        (["--depth", "three"], "--depth: invalid int value: 'three'"),
        (["--depth", "0"], "--depth is 0; it must be at least 1"),
        (["--sources", "vocals"], "--sources is 'vocals'"),
        (["--sources", "vocals,two\nlines"], r"--sources is 'vocals,two\\nlines'"),
        (
            ["--sources", "vocals,rest=mixture"],
            "--sources is 'vocals,rest=mixture'; .* not the mixture",
        ),
        (["--batch-size", "6", "--devices", "4"], "--batch-size 6 cannot be split over --devices 4; give a multiple"),
        (["--minutes", "1", "--joules", "9"], "--minutes and --joules were given; leave out one of them"),
    ],
)
def test_flags_that_are_not_understood_are_refused(flags, message):
    with pytest.raises(UserError, match=message):
        from_flags(*flags)


def example_of(field: dataclasses.Field) -> tuple[object, list[str]]:
    """A value that is not the field's default, and the flag that asks for it."""
    flag = "--" + field.name.replace("_", "-")
    choices = [choice for choice in field.metadata["choices"] if choice != field.default]
    if choices:
        return choices[0], [flag, str(choices[0])]
    if isinstance(field.default, bool):
        return not field.default, [flag.replace("--", "--no-") if field.default else flag]
    if "tuple[float" in str(field.type):
        return (1.0, 0.5), [flag, "1,0.5"]
    if isinstance(field.default, tuple):
        return ("speech", "noise"), [flag, "speech,noise"]
    if field.name == "snr_db":
        return "-5:20", [flag, "-5:20"]
    if "str" in str(field.type):
        return "folder", [flag, "folder"]
    value = field.metadata["at_most"] or (field.default or 9) + 1
    return value, [flag, str(value)]


@pytest.mark.parametrize(
    ("where", "section", "field"), FIELDS, ids=[f"{section.__name__}-{field.name}" for _, section, field in FIELDS]
)
def test_every_field_has_a_flag(where, section, field):
    value, flags = example_of(field)
    config = from_flags(*where, *flags)
    parts = (*vars(config).values(), getattr(config.model, "body", None))
    changed = next(part for part in parts if type(part) is section)
    assert getattr(changed, field.name) == value != getattr(section(), field.name)
    # Nothing else has changed.
    assert config == from_flags(*where).changed({field.name: value})


def test_another_body_takes_over_what_a_preset_changed():
    config = from_flags("--preset", "spleeter-4stems", "--body", "jansson", "--dropout", "0.1")
    assert config.model.body == Jansson(5, 5, normalization="batch", activation="elu", dropout=0.1)


def test_configs_of_older_versions_are_read():
    """As they were before bodies had sections: the options of all in one, some of which had no effect."""
    blocks = {"downsampling": "filtered", "upsampling": "linear", "convolutions": 1, "upsampling_kernel_size": None}
    old = {"depth": 3, "down_kernel_size": 7, "padding": "context", **blocks}
    expected = Unet1D(depth=3, body=Blocks1D(down_kernel_size=7, padding="valid", downsampling="filtered"))
    assert Config.from_values({"family": "unet_1d", "model": old}).model == expected
    old = {"depth": 3, "form": "jansson", "dropout": 0.5, "frame_length": 512, **blocks, "downsampling": "pooled"}
    expected = Unet2D(depth=3, frame_length=512, subbands=1, body=Jansson(dropout=0.5))
    assert Config.from_values({"family": "unet_2d", "model": old}).model == expected


def test_help_shows_every_flag_with_its_default_and_choices():
    parser = CommandParser(formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=80, width=1000))
    add_flags(parser)
    lines = {re.split("[ ,]", line.strip())[0]: line for line in parser.format_help().splitlines()}
    # Of a field that the families share, the help of the first one is shown.
    first = {field.name: field for _, _, field in reversed(FIELDS)}
    for _, _, field in FIELDS:
        line = lines["--" + field.name.replace("_", "-")]
        assert first[field.name].metadata["help"] in line
        assert all(str(choice) in line for choice in field.metadata["choices"])
        assert field.default is None or isinstance(field.default, tuple) or str(field.default) in line


def names_read(folder: str, of: str | None = None) -> set[str]:
    """Names that the code in a folder reads; where `of` is given, only attributes of it (`config.data.NAME`)."""
    nodes = [node for path in (REPOSITORY / folder).rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    loads = [node for node in nodes if isinstance(getattr(node, "ctx", None), ast.Load)]
    attributes = [node for node in loads if isinstance(node, ast.Attribute)]
    if of:
        return {
            node.attr
            for node in attributes
            if of in (getattr(node.value, "attr", None), getattr(node.value, "id", None))
        }
    return {node.attr for node in attributes} | {node.id for node in loads if isinstance(node, ast.Name)}


def test_every_field_is_read_somewhere():
    # `Data` itself turns sources into parts and stems, and a text into a range; `Training` augmentations into one
    # property; these are read.
    read = {
        Data: names_read("sepnet", of="data") | {"sources", "snr_db"},
        Training: names_read("sepnet", of="training") | set(AUGMENTATIONS),
    }
    # Attributes of `self` in families and bodies, or of the `options` that they hand on.
    of_models = names_read("sepnet/models", of="self") | names_read("sepnet/models", of="options")
    assert [field.name for _, section, field in FIELDS if field.name not in read.get(section, of_models)] == []


@pytest.mark.parametrize(
    ("section", "num_samples", "largest"),
    [
        (Unet1D(), 64, 6),
        (Unet1D(), 63, 5),
        (Unet1D(), 1, 0),
        (Unet2D(frame_length=1024, frame_step=256), 256 * 13, 4),
        (Unet2D(frame_length=1024, frame_step=256), 256 * 12, 3),
        (Unet2D(frame_length=64, frame_step=16), 1_000_000, 3),
        (Unet2D(frame_length=64, frame_step=16, subbands=1), 1_000_000, 5),
        (Unet2D(frame_length=4, frame_step=3, subbands=1), 2, 1),
        # Four frames of the default window touch them.
        (Unet2D(), 100, 2),
    ],
)
def test_largest_depth_leaves_one_value_at_the_bottom(section, num_samples, largest):
    assert section.largest_depth(num_samples, 44_100) == largest


@pytest.mark.parametrize(
    ("sample_rate", "options", "step"),
    [
        (44_100, {}, 1024),
        (48_000, {}, 1024),
        (22_050, {}, 512),
        (8000, {}, 256),
        (44_100, {"frame_length": 512}, 128),
        (44_100, {"frame_length": 512, "frame_step": 100}, 100),
        (2, {}, 1),
    ],
)
def test_the_window_is_as_long_in_seconds_at_any_rate(sample_rate, options, step):
    section = Unet2D(depth=1, base_filters=1, subbands=1, **options)
    network = section.build(sources=("vocals", "other"), num_channels=1, sample_rate=sample_rate)
    assert network.grid_samples == 2 * step
