"""Knobs: what is read, what is refused, and what of a config KerasTuner's values make."""

import keras_tuner
import pytest

from pipelines.errors import UserError
from sepnet.config.config import Config
from sepnet.models.unet_2d import Unet2D
from tests.tuner.searching import tiny_search
from tuner.search import main
from tuner.searching.search_space import Knob, Space, parse_knob, parse_knobs, with_values

BASE = Config(model=Unet2D())
ONLY_2D = ["unet_2d"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("learning_rate=1,1e-3", (1.0, 1e-3)),
        ("learning-rate = 1e-3, 2e-3 ", (1e-3, 2e-3)),
        ("num_bins=none,64", (None, 64)),
        ("num-bins=None", (None,)),
        ("normalization=none,batch", ("none", "batch")),
        ("up_activation=none,relu", (None, "relu")),
        ("wiener=true,False", (True, False)),
        ("wiener=true", (True,)),
        ("base_filters=12", (12,)),
        ("learning_rate=1e30,0", (1e30, 0.0)),
        ("segment_seconds=1,2.5", (1.0, 2.5)),
    ],
)
def test_values_are_of_the_fields_type_and_arrive_in_the_config(text, values):
    knob = parse_knob(text, ONLY_2D)
    assert knob.values == values and list(map(type, knob.values)) == list(map(type, values))
    space = Space({"stft": range(1, 2)}, (knob,))

    def arrived(trial):
        config = with_values(BASE, trial, seed=5)
        assert config.training.seed == 5
        section = next(one for one in (*vars(config).values(), config.model.body) if hasattr(one, knob.name))
        return getattr(section, knob.name)

    # One after the other by the grid, and those that KerasTuner draws, over its wire.
    assert tuple(map(arrived, space.grid())) == values
    hp = keras_tuner.HyperParameters()
    space.declare(hp)
    oracle = keras_tuner.oracles.RandomSearchOracle("val_mse", max_trials=9, seed=1, hyperparameters=hp)
    drawn = set()
    for _ in range(30):
        copied = hp.copy()
        copied.values = {one.name: one.random_sample(oracle._seed_state) for one in hp.space}
        oracle._seed_state += 1
        sent = keras_tuner.HyperParameters.from_proto(copied.to_proto()).values
        assert sent == copied.values
        drawn.add(arrived(sent))
    assert drawn == set(values)


@pytest.mark.parametrize(
    ("text", "knob"),
    [
        ("learning_rate=1e-4:1e-2:log", Knob("learning_rate", low=1e-4, high=1e-2, log=True)),
        ("weight_decay=0:1", Knob("weight_decay", low=0.0, high=1.0)),
        ("base_filters=2: 6", Knob("base_filters", low=2, high=6)),
    ],
)
def test_ranges(text, knob):
    assert parse_knob(text) == knob


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--knob is ''; give values as"),
        ("=", "--knob is '='; give values as"),
        ("base_filters=", "--knob is 'base_filters='; give values as"),
        ("base_filters=1,,2", "'' is no value of base_filters"),
        ("base_filters=1,", "'' is no value of base_filters"),
        ("base_filters=:5", "'' is no value of base_filters"),
        ("base_filters=2.5", "'2.5' is no value of base_filters"),
        ("base_filters=none", "'none' is no value of base_filters"),
        ("base_filters=" + "9" * 30, "is no value of base_filters"),
        ("base_filters=" + "9" * 5000, "is no value of base_filters"),
        ("base_filters=2,2", "has a value twice"),
        ("learning_rate=1,1.0", "has a value twice"),
        ("base_filters=2,0", "--base-filters is 0; it must be at least 1"),
        ("dropout=0.1,5", "--dropout is 5.0; it must be at most 0.9"),
        ("dropout=0.1:5", "--dropout is 5.0; it must be at most 0.9"),
        (
            "normalization=batch,bath",
            "--normalization is 'bath'; choose one of none, renorm, batch, frame, group, instance",
        ),
        ("learning_rate=inf", "'inf' is no value of learning_rate"),
        ("learning_rate=1e-3:1e999", "'1e999' is no value of learning_rate"),
        ("learning_rate=nan,1", "'nan' is no value of learning_rate"),
        ("learning_rate=fast", "'fast' is no value of learning_rate"),
        ("weight_decay=0:1e-3:log", "the logarithm of 0.0 is no number"),
        ("weight_decay=-1:1", "--weight-decay is -1.0; it must be at least 0.0"),
        ("learning_rate=1e-2:1e-3", "does not rise from 0.01 to 0.001"),
        ("learning_rate=1e-2:1e-2", "does not rise from 0.01 to 0.01"),
        ("base_filters=2:8:2", "nothing but :log, not '2'"),
        ("base_filters=2:8:log:2", "nothing but :log, not 'log:2'"),
        ("num_bins=none:64", "num_bins has no range of numbers"),
        ("wiener=true:false", "wiener has no range of numbers"),
        ("wiener=1,0", "'1' is no value of wiener"),
        ("source_weights=1,2", "'1' is no value of source_weights"),
        ("learnin_rate=1", "learnin_rate is no option of unet_2d; did you mean learning_rate?"),
        ("padding=zero", "padding is no option of unet_2d; `python -m sepnet.train --help` lists them"),
        ("tuner/epochs=3", "tuner/epochs is no option of unet_2d"),
        *(
            (f"{name}=1,2", f"--knob {name} is what a search sets itself; use --")
            for name in ("depth", "seed", "epochs")
        ),
        *((f"{name}=1,2", f"--knob {name} is what a search sets itself; use --") for name in ("minutes", "joules")),
        ("family=unet_1d", "--knob family is what a search sets itself; use --families instead"),
        ("representation=mel", "--knob representation is what a search sets itself; use --representations instead"),
        ("validation_seconds=1,2", "changes what val_mse is measured on; give all models one --validation-seconds"),
        ("data=a,b", "changes what val_mse is measured on; give all models one --data"),
    ],
)
def test_what_is_no_knob_is_one_line(text, message):
    with pytest.raises(UserError) as caught:
        parse_knob(text, ONLY_2D)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_field_comes_once():
    with pytest.raises(UserError, match="--knob learning_rate comes twice; give all of its values in one"):
        parse_knobs(["learning_rate=1e-3", "learning-rate=1e-2"])


@pytest.mark.parametrize(
    "more",
    [
        ["--knob", "weight_decay=0:1e-3:log", "--strategy", "random"],
        ["--knob", "upsampling_kernel_size=3,x"],
        ["--knob", "num_mel_bands=32,64", "--families", "unet_2d"],
        ["--knob", "seed=1,2"],
        ["--epochs", "5"],
        ["--minutes", "5"],
        ["--num-mel-bands", "64", "--families", "unet_2d"],
        ["--families", ""],
        ["--families", "unet_1d,"],
        ["--families", "unet_1d,unet_1d"],
        ["--representations", ""],
        ["--depths", ""],
        ["--depths", "1-"],
        ["--depths", "1-" + "9" * 5000],
        ["--depths", "inf"],
        ["--budget", ""],
        ["--budget", "infepochs"],
        ["--budget", "0epochs"],
        ["--budget", "9" * 5000 + "epochs"],
        ["--memory", ""],
        ["--name", ""],
        ["--name", "."],
        ["--name", "a/.."],
        ["--searches", ""],
        ["--saved-models", ""],
        ["--workers", "0"],
        ["--search-seed", str(2**32)],
        ["--max-trials", "inf"],
        ["--seeds", ""],
        ["--"],
    ],
)
def test_what_is_refused_leaves_nothing(tmp_path, songs, more):
    flags = tiny_search(songs, tmp_path / "searches", "1")
    with pytest.raises(UserError) as caught:
        main([*flags, *more])
    assert "\n" not in str(caught.value) and not (tmp_path / "searches").exists()


def test_mel_bands_are_of_the_representation_mel():
    from tuner.search import _bases, _parser

    bases = _bases(_parser().parse_args(["--representations", "mel,stft", "--num-mel-bands", "40"]))
    assert {name: base.model.num_mel_bands for name, base in bases.items()} == {"mel": 40, "stft": None}
