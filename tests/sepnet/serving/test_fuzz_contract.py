"""Damaged SavedModels: each is loaded or refused in one line, and the server goes on."""

import hashlib
import json
import os
import pathlib
import shutil

import hypothesis
import hypothesis.strategies as st
import pytest

from pipelines.errors import UserError
from sepnet.export.checksums import CHECKSUMS_FILE
from sepnet.export.contract import CONTRACT_FILE
from sepnet.export.warmup import WARMUP_FILE
from sepnet.serving.engine.versions import LoadedVersion
from tests.sepnet.helpers import contract_of, small_network

FILES = (
    "saved_model.pb",
    "fingerprint.pb",
    "variables/variables.index",
    "variables/variables.data-00000-of-00001",
    *map(str, (CONTRACT_FILE, CHECKSUMS_FILE, WARMUP_FILE)),
)
QUICK = 80
# `SEPNET_FUZZ_EXAMPLES` asks for another number.
THOROUGH = int(os.environ.get("SEPNET_FUZZ_EXAMPLES", "5000"))
NUMBERS = st.sampled_from(
    [0, 1, -1, 2, 44_100, 1 << 20, 1 << 31, 1 << 63, 10**400, 0.5, 1e308, float("nan"), float("inf")]
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.integers() | st.floats() | st.text(max_size=20) | st.just("\ud800"),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=9), children, max_size=4),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a model and a whole copy of its only version."""
    from sepnet.export.write import export_model

    network = small_network("unet_1d")
    root = tmp_path_factory.mktemp("damaged")
    export_model(network.model, root / "model", contract_of(network))
    shutil.copytree(root / "model" / "1", root / "whole")
    return root


@st.composite
def damaged_bytes(draw, data: bytes) -> bytes:
    """A file as a broken disk, transfer or program leaves it."""
    place = draw(st.integers(0, max(len(data) - 1, 0)))
    length = draw(st.integers(1, 4096))
    kind = draw(st.sampled_from(["flip", "cut", "lose", "zero", "insert", "repeat", "replace"]))
    if kind == "flip":
        changed = bytes(byte ^ (1 << draw(st.integers(0, 7))) for byte in data[place : place + 1])
        return data[:place] + changed + data[place + 1 :]
    if kind == "cut":
        return data[:place]
    if kind == "replace":
        return draw(st.binary(max_size=64))
    new = {
        "lose": b"",
        "zero": bytes(min(length, len(data) - place)),
        "insert": draw(st.binary(min_size=1, max_size=64)) + data[place : place + length],
        "repeat": 2 * data[place : place + length],
    }[kind]
    return data[:place] + new + data[place + length :]


@st.composite
def damaged_contracts(draw, text: str) -> str:
    """A contract that somebody edited."""
    contract = json.loads(text)
    keys = [*sorted(contract), "metrics", "family", "costs"]
    for key in draw(st.lists(st.sampled_from(keys), min_size=1, max_size=2)):
        kind = draw(st.sampled_from(["other", "missing", "list", "element"]))
        if kind == "missing":
            contract.pop(key, None)
        elif kind == "element" and isinstance(contract.get(key), list) and contract[key]:
            contract[key] = [*contract[key][1:], draw(VALUES)]
        else:
            contract[key] = [contract.get(key)] if kind == "list" else draw(VALUES)
    return json.dumps(contract)


def try_to_load(folder: pathlib.Path, damage) -> bool:
    """Loads the version after some damage; returns whether it still can be."""
    version = folder / "model" / "1"
    shutil.rmtree(version)
    shutil.copytree(folder / "whole", version)
    damage(version)
    try:
        # The page asks for all that is loaded at once.
        json.dumps(LoadedVersion("model", 1, version).summary(), allow_nan=False)
    except UserError as error:
        assert "\n" not in str(error) and str(version) in str(error)
        return False
    return True


def fuzz(folder, examples: int) -> None:
    """Tries so many kinds of damage."""
    settings = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    whole = folder / "whole"

    @settings
    @hypothesis.given(data=st.data())
    def damaged(data):
        name = data.draw(st.sampled_from([*FILES, "contract", "missing"]))
        if name == "contract":
            text = data.draw(damaged_contracts((whole / CONTRACT_FILE).read_text()))
            try_to_load(folder, lambda version: (version / CONTRACT_FILE).write_text(text))
        elif name == "missing":
            lost = data.draw(st.sampled_from(FILES))
            loads = try_to_load(folder, lambda version: (version / lost).unlink())
            assert loads == (lost in ("fingerprint.pb", str(CHECKSUMS_FILE), str(WARMUP_FILE)))
        else:
            original = (whole / name).read_bytes()
            content = data.draw(damaged_bytes(original))
            loads = try_to_load(folder, lambda version: (version / name).write_bytes(content))
            # TensorFlow itself would abort the process at some of these graphs, or take any memory.
            is_checked = name in ("saved_model.pb", "variables/variables.index", str(CHECKSUMS_FILE))
            assert loads == (content == original) or not is_checked

    damaged()


def test_damaged_models_are_loaded_or_refused_in_one_line(folder):
    fuzz(folder, QUICK)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_damaged_models_are_loaded_or_refused_in_one_line(folder):
    fuzz(folder, THOROUGH)


def test_a_model_of_an_older_export_has_no_checksums_and_is_loaded(folder):
    assert try_to_load(folder, lambda version: (version / CHECKSUMS_FILE).unlink())


def test_the_checksums_are_what_sha256sum_reads(folder):
    assert try_to_load(folder, lambda version: None)
    for line in (folder / "whole" / CHECKSUMS_FILE).read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((folder / "whole" / name).read_bytes()).hexdigest() == digest
