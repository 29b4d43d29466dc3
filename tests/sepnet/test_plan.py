"""`python -m sepnet.plan`: its tables, its JSON, and what it refuses."""

import json
import types

import pynvml
import pytest
import tensorflow as tf

from pipelines.errors import UserError
from sepnet.config.config import Config
from sepnet.config.training import Training
from sepnet.export.contract import CONTRACT_FILE
from sepnet.measures.memory import available_bytes, parse_memory
from sepnet.models.unet_1d import Unet1D
from sepnet.plan import main, make_plan, parse_depths, savings
from tests.sepnet.helpers import contract_of

# Wave-U-Net M6: stereo, 4 sources, batches of 16 with 16,384 samples at 22,050 Hz.
WAVE_U_NET = ["--family", "unet_1d", "--batch-size", "16", "--segment-seconds", "0.7431", "--sample-rate", "22050"]


def planned(capsys, *arguments):
    """The JSON that the command prints."""
    main([*arguments, "--json"])
    return json.loads(capsys.readouterr().out)


def test_wave_u_net_fits_the_memory_that_it_was_trained_in(capsys):
    """Its authors had 8 GB (github.com/f90/Wave-U-Net, issue 30)."""
    plan = planned(capsys, *WAVE_U_NET, "--depth", "12", "--memory", "8GB", "--device", "gpu")
    [row] = plan["depths"]
    assert row["parameters"] == 10_263_552 and row["fits"]
    assert [way["depth"] for way in plan["savings"]] == [12] * 5


def test_json_says_all_that_the_tables_say(capsys):
    plan = planned(capsys, "--depths", "2-4", "--memory", "2.5 GiB", "--segment-seconds", "1", "--device", "cpu")
    assert plan["memory_bytes"] == 2_684_354_560
    assert plan | {"depths": 0, "savings": 0, "memory_bytes": 0} == {
        "family": "unet_2d",
        "sample_rate": 44_100,
        "segment_seconds": 1.0,
        "batch_size": 4,
        "precision": "float32",
        "device": "cpu",
        "memory_bytes": 0,
        "depths": 0,
        "savings": 0,
    }
    assert [row["depth"] for row in plan["depths"]] == [2, 3, 4]
    for row in plan["depths"]:
        assert set(row) == {
            "depth", "parameters", "flops_per_second", "receptive_field_samples", "training_bytes", "separation_bytes",
            "fits",
        }  # fmt: skip
        assert row["fits"] == (row["training_bytes"] <= plan["memory_bytes"])
    for way in plan["savings"]:
        assert set(way) == {"name", "flags", "depth", "training_bytes"}
    assert plan["savings"][0]["flags"] == ""
    assert plan["savings"][-1]["flags"] == "--batch-size 2 --accumulation 2 --precision mixed_bfloat16 --recompute"


def test_flags_are_those_that_the_given_ones_lack(capsys):
    """Behind the same command, they give the network and the batches of their row."""
    network = "--family unet_1d --depths 1 --base-filters 2 --segment-seconds 0.1 --batch-size 2 --accumulation 2"
    plan = planned(capsys, *network.split(), "--precision", "mixed_bfloat16", "--recompute", "--no-remix")
    whole, fewer = "--batch-size 4 --accumulation 1", "--batch-size 1 --accumulation 4"
    assert {way["name"]: way["flags"] for way in plan["savings"]} == {
        "float32": f"{whole} --precision float32 --no-recompute",
        "mixed precision": f"{whole} --no-recompute",
        "recomputation": f"{whole} --precision float32",
        "accumulation": f"{fewer} --precision float32 --no-recompute",
        "all three": fewer,
    }


def test_the_rate_is_that_of_the_songs(capsys, tmp_path, write_song):
    song = write_song(tmp_path / "songs" / "train" / "a song")
    small = ["--data", str(song.parents[1]), "--family", "unet_1d", "--depth", "1"]
    assert planned(capsys, *small)["sample_rate"] == 8000
    assert planned(capsys, *small, "--sample-rate", "16000")["sample_rate"] == 16_000


def test_tables_fit_100_columns(capsys):
    main(["--family", "unet_1d", "--filter-growth", "double", "--segment-seconds", "0.1", "--memory", "0.5GB"])
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 100
    # From 1 to the largest that leaves the bottleneck of 4,410 samples one of them.
    assert [line.split()[0] for line in printed if line.strip()[:1].isdigit()] == [str(depth) for depth in range(1, 13)]
    assert "largest depth in 0.5GB" in "\n".join(printed)


def test_depths_grow_with_what_saves_memory():
    config = Config(model=Unet1D(filter_growth="double"), training=Training(batch_size=16))
    plan = make_plan(config, range(1, 9), 44_100, 7 * 10**9, "gpu")
    plain, *alone, everything = [way["depth"] for way in plan["savings"]]
    assert plain < everything == max(alone) and min(alone) >= plain
    assert [row["fits"] for row in plan["depths"]] == [depth <= plain for depth in range(1, 9)]


def test_every_device_has_a_segment_of_the_smallest_batch(capsys):
    small = ["--batch-size", "4", "--family", "unet_1d", "--depth", "1", "--segment-seconds", "0.1", "--no-remix"]
    one, two = (planned(capsys, *small, "--devices", devices)["savings"] for devices in ("1", "2"))
    assert two[3]["flags"] == "--batch-size 2 --accumulation 2"
    assert two[-1]["flags"].startswith("--batch-size 2 --accumulation 2 ")
    assert one[3]["training_bytes"] == two[3]["training_bytes"]


@pytest.mark.parametrize(("batch_size", "devices", "fewest"), [(8, 1, 2), (12, 2, 4), (9, 1, 3), (1, 1, 1), (2, 2, 2)])
def test_every_device_has_two_segments_where_it_mixes_their_stems(batch_size, devices, fewest):
    ways = savings(Config(training=Training(batch_size=batch_size, devices=devices)))
    training = ways["accumulation"].training
    assert (training.batch_size, training.accumulation) == (fewest, batch_size // fewest)


def test_nothing_fits_nothing(capsys):
    main(["--depths", "1-2", "--memory", "1MB"])
    assert capsys.readouterr().out.count("none") == 5


@pytest.mark.parametrize(
    ("text", "expected"), [("16GB", 16 * 10**9), ("16 gib", 2**34), ("1.5TB", 15 * 10**11), ("500MB", 5 * 10**8)]
)
def test_memory_takes_units(text, expected):
    assert parse_memory(text) == expected


def test_memory_is_that_of_the_smallest_gpu_of_the_name(monkeypatch):
    """TensorFlow tells the name alone; by NVML's numbers, its first GPU may be any of these."""
    gpus = [("GPU A", 80), ("GPU B", 24), ("GPU A", 40)]

    def pretend(name, count=lambda: len(gpus)):
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
        monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"device_name": name})
        monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", count)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", gpus.__getitem__)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetName", lambda gpu: gpu[0])
        monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda gpu: types.SimpleNamespace(total=gpu[1]))

    pretend("GPU A")
    assert available_bytes("gpu") == 40

    def no_driver():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)

    for name, count in (("GPU C", gpus.__len__), ("GPU A", no_driver)):
        pretend(name, count)
        with pytest.raises(UserError, match="the memory of this GPU is not known; give it with --memory"):
            available_bytes("gpu")


def test_depths_are_ranges_and_single_ones():
    assert parse_depths("3-5") == [3, 4, 5] and parse_depths("7") == [7]
    assert parse_depths("12,3, 5-6,6") == [3, 5, 6, 12]


MISTAKES = [
    (["--memory", "16"], "--memory is '16'; give a number and one of MB, GB"),
    (["--memory", "16 bananas"], "--memory is '16 bananas'"),
    (["--memory", "GB"], "--memory is 'GB'"),
    (["--depths", "9-3"], "--depths is '9-3', which is no depth; give the first and the last, such as 3-9"),
    (["--depths", "0-3"], "--depths is '0-3'"),
    (["--depths", "3,"], "--depths is '3,'"),
    (["--depths", "deep"], "--depths is 'deep'"),
    (["--depths", "1-30"], "depth 30 does not fit a segment of 2.0 s at 44100 Hz: the largest depth of unet_2d is 6"),
    (["--depth", "9"], "depth 9 does not fit a segment"),
    (["--depth", "100"], "depth 100 does not fit a segment"),
    (["--num-bins", "64", "--depth", "5"], "is 4; lower the depth or give the network more bins"),
    (["--num-bins", "2"], "depth 1 does not fit a segment of 2.0 s at 44100 Hz: the largest depth of unet_2d is 0"),
    (["--family", "unet_hybrid", "--shared-levels", "20"], "is 0; lower the depth or raise --segment-seconds"),
    (["--depth", "3", "--depths", "1-3"], "leave out one"),
    (["--device", "tpu"], "--device: invalid choice: 'tpu'"),
    (["--family", "unet_3d"], "unknown family 'unet_3d'"),
    (["--frame-step", "3200", "--depths", "1-2"], "frame_step is 3200"),
    (["--batch-size", "3", "--devices", "2"], "--batch-size 3 cannot be split over --devices 2; give a multiple"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(UserError) as caught:
        main(arguments)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("arguments", "message"), [MISTAKES[1], MISTAKES[3], MISTAKES[6]])
def test_mistakes_end_with_one_line_and_status_2(run, arguments, message):
    outcome = run("sepnet.plan", *arguments)
    [line] = outcome.stderr.splitlines()
    assert outcome.status == 2 and not outcome.stdout
    assert line.startswith("error: ") and message in line


def test_help_answers_without_tensorflow(run):
    outcome = run("sepnet.plan", "--help", PYTHONPROFILEIMPORTTIME="1")
    assert outcome.status == 0 and outcome.stdout.startswith("usage: python -m sepnet.plan")
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in outcome.stderr.splitlines()}
    assert "argparse" in imported and not imported & {"tensorflow", "keras"}


def test_models_and_options_of_networks_do_not_go_together():
    with pytest.raises(UserError, match="--models tell themselves what they are; leave out --depth"):
        main(["--models", "saved_models/demo", "--depth", "3"])
    with pytest.raises(UserError, match="--memory is of networks that are to be trained; leave it out, or --models"):
        main(["--models", "saved_models/demo", "--memory", "16GB"])


def test_models_of_one_name_have_a_row_each(capsys, tmp_path):
    models = [tmp_path / name / "unet" for name in ("a", "b")]
    for number, model in enumerate(models):
        (model / "1" / "assets.extra").mkdir(parents=True)
        (model / "1" / "saved_model.pb").touch()
        contract = contract_of(types.SimpleNamespace(grid_samples=1, reach_samples=0))
        (model / "1" / CONTRACT_FILE).write_text(json.dumps({**contract, "costs": {"parameters": number}}))
    plan = planned(capsys, "--models", *map(str, models))
    assert {name: contract["costs"]["parameters"] for name, contract in plan.items()} == dict(
        zip(map(str, models), range(2), strict=True)
    )
    assert list(planned(capsys, "--models", str(models[0]))) == ["unet"]
