"""Models that come, change, break and go while requests run."""

import errno
import json
import logging
import os
import pathlib
import shutil
import sys
import threading
import weakref
from urllib.parse import quote

import pytest

from sepnet.export.contract import CONTRACT_FILE
from sepnet.serving.engine import store as store_module
from sepnet.serving.engine.options import ServeOptions
from sepnet.serving.engine.store import ModelStore
from tests.sepnet.helpers import noise
from tests.sepnet.serving.conftest import eventually, running
from tests.sepnet.serving.test_separate_route import encoded

GOOD = {"instances": [[[0.25, -0.25]] * 100]}


@pytest.fixture
def place(gain_model, tmp_path):
    """A folder of one model, version 1 of which doubles; a function puts another version there, whole."""
    root = tmp_path / "saved_models"
    (root / "model").mkdir(parents=True)

    def add(number, gain):
        beside = root / f".{number}"
        shutil.copytree(gain_model({"vocals": gain, "rest": 0.0}, sample_rate=8000) / "1", beside)
        beside.rename(root / "model" / str(number))

    add(1, 2.0)
    return root, add


@pytest.fixture
def server(place):
    with running(ServeOptions(saved_models=place[0], poll_seconds=0.05, labels={("model", "old"): 1})) as found:
        yield found


def gain(server, where=""):
    """The factor by which a request's vocals are multiplied, or the status if there are none."""
    answer = server.predict(f"model{where}", GOOD)
    return answer.json()["predictions"][0]["vocals"][0][0] / 0.25 if answer.status_code == 200 else answer.status_code


def states(server):
    """State and error of each version."""
    answer = server.get("/v1/models/model").json()
    return {
        int(status["version"]): (status["state"], status["status"]["error_message"])
        for status in answer.get("model_version_status", ())
    }


def test_new_versions_are_picked_up_and_labelled_ones_stay(server, place):
    assert gain(server) == 2
    place[1](2, 3.0)
    eventually(lambda: gain(server) == 3)
    place[1](10, 4.0)
    eventually(lambda: gain(server) == 4)
    # The one with a label is served beside the newest; the one between them is not.
    eventually(lambda: gain(server, "/versions/2") == 404)
    assert gain(server, "/labels/old") == gain(server, "/versions/1") == 2
    assert {number: state for number, (state, _) in states(server).items()} == {
        10: "AVAILABLE",
        2: "END",
        1: "AVAILABLE",
    }


def test_a_label_on_the_newest_version_keeps_no_other(place):
    place[1](2, 3.0)
    with running(ServeOptions(saved_models=place[0], labels={("model", "new"): 2})) as server:
        assert gain(server, "/labels/new") == gain(server) == 3
        assert gain(server, "/versions/1") == 404


@pytest.mark.parametrize("damage", ["graph", "weights", "contract", "half a contract", "no weights"])
def test_a_damaged_version_changes_nothing_but_the_status(server, place, damage):
    root, add = place
    add(2, 3.0)
    eventually(lambda: gain(server) == 3)
    beside = root / ".damaged"
    shutil.copytree(root / "model" / "2", beside)
    if damage == "graph":
        (beside / "saved_model.pb").write_bytes(b"\0damaged")
    elif damage == "weights":
        next(beside.glob("variables/*.index")).write_bytes(b"damaged")
    elif damage == "no weights":
        shutil.rmtree(beside / "variables")
    else:
        (beside / CONTRACT_FILE).write_text("{" if damage == "contract" else '{"format": 1, "sources": []}')
    beside.rename(root / "model" / "3")
    eventually(lambda: 3 in states(server) and states(server)[3][0] == "END")
    assert "damaged" in states(server)[3][1] and states(server)[2] == ("AVAILABLE", "")
    assert gain(server) == 3
    # Mended in its place, it is served.
    shutil.rmtree(root / "model" / "3")
    add(3, 5.0)
    eventually(lambda: gain(server) == 5)


def test_an_empty_version_is_damaged(server, place):
    (place[0] / "model" / "2").mkdir()
    eventually(lambda: states(server).get(2, ("",))[0] == "END")
    assert gain(server) == 2.0 and "no SavedModel in" in states(server)[2][1]


def test_a_version_that_is_replaced_or_removed_is_drained(server, place, monkeypatch):
    """A request that has begun ends with the model that it began with."""
    from sepnet.serving.engine import runner

    root, add = place
    has_begun, may_go_on = threading.Event(), threading.Event()
    unchanged = runner.run_signature

    def run_signature(version, *arguments):
        if not has_begun.is_set():
            has_begun.set()
            assert may_go_on.wait(30)
        return unchanged(version, *arguments)

    monkeypatch.setattr(runner, "run_signature", run_signature)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(gain(server, "/versions/1")))
    thread.start()
    assert has_begun.wait(30)
    shutil.rmtree(root / "model")
    eventually(lambda: states(server)[1][0] == "UNLOADING")
    assert server.get("/readyz").status_code == 503
    may_go_on.set()
    thread.join()
    assert answers == [2]
    eventually(lambda: states(server)[1][0] == "END")
    assert gain(server) == 404
    (root / "model").mkdir()
    add(1, 7.0)
    eventually(lambda: gain(server, "/versions/1") == 7)
    assert server.get("/readyz").status_code == 200


def test_requests_do_not_fail_while_versions_change(server, place):
    """Four clients ask all the time while versions come and go."""
    stop, seen = threading.Event(), []

    def ask():
        while not stop.is_set():
            seen.append(gain(server))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(2, 5):
        place[1](number, float(number + 1))
        eventually(lambda number=number: number + 1 in seen)
        if number > 2:
            shutil.rmtree(place[0] / "model" / str(number - 1))
    stop.set()
    for thread in threads:
        thread.join()
    assert set(seen) == {2, 3, 4, 5}


def test_models_that_are_gone_leave_the_memory(server, place):
    """Each version is held by nobody once it has been drained."""
    with server.service.store.lease("model") as version:
        reference = weakref.ref(version)
    del version
    assert server.post("/separate?job=remembered", data=encoded(noise(100, 1))).status_code == 200
    place[0].joinpath("model", "1").rename(place[0] / ".away")
    eventually(lambda: reference() is None)


@pytest.fixture
def looked(caplog):
    """A store that is told when to look at its folder; gives what it logs of that, and has nothing more to say."""
    caplog.set_level(logging.INFO, "sepnet.serving")

    def look(store):
        caplog.clear()
        store.scan()
        said = [record.getMessage() for record in caplog.records]
        caplog.clear()
        store.scan()
        assert not caplog.records
        return said

    return look


def test_each_model_that_comes_changes_breaks_or_goes_is_logged_once(place, looked):
    root, add = place
    store = ModelStore(ServeOptions(saved_models=root))
    assert looked(store) == ["loaded model, version 1"]
    add(2, 3.0)
    assert looked(store) == ["loaded model, version 2", "removed model, version 1"]
    shutil.rmtree(root / "model" / "2" / "variables")
    (said,) = looked(store)
    assert said.startswith("cannot load model, version 2: ") and "damaged" in said
    add(3, 3.0)
    assert looked(store) == ["loaded model, version 3", "removed model, version 2"]
    contract = root / "model" / "3" / CONTRACT_FILE
    contract.write_text(contract.read_text() + "\n")
    assert looked(store) == ["loaded anew: model, version 3"]
    shutil.rmtree(root / "model")
    assert looked(store) == [
        "removed model, version 3",
        f"{root} holds no model that can be served; waiting for one, as sepnet.train exports it",
    ]
    (root / "model").mkdir()
    add(1, 2.0)
    assert looked(store) == ["loaded model, version 1"]


def test_a_folder_without_a_model_says_so_with_what_to_do(place, tmp_path, looked):
    root, _ = place
    for name, message in (
        ("", "holds no model that can be served; waiting for one"),
        ("model", f"is itself a model, so no model is served; name its parent instead: {root}"),
        ("model/1", f"is one version of a model, so no model is served; name the folder of models instead: {root}"),
        ("gone", "cannot be read, so no model is served: No such file or directory"),
    ):
        folder = root / name if name else tmp_path / "empty"
        if not name:
            folder.mkdir()
        (said,) = looked(ModelStore(ServeOptions(saved_models=folder)))
        assert said.startswith(f"{folder} {message}")


def test_a_look_that_fails_takes_no_model_away(place, looked, monkeypatch, tmp_path):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    root, _ = place
    store = ModelStore(ServeOptions(saved_models=root))
    assert looked(store) == ["loaded model, version 1"]
    for target, name, where in (
        (pathlib.Path, "iterdir", ""),
        (store_module, "versions", "model"),
        (store_module, "fingerprint", "model/1"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, fail)
            assert looked(store) == [f"{root / where} cannot be read: Input/output error"]
        assert store.newest() and looked(store) == []
    (tmp_path / "empty").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "is_file", fail)
        (said,) = looked(ModelStore(ServeOptions(saved_models=tmp_path / "empty")))
    assert said.endswith("waiting for one, as sepnet.train exports it")


def test_folders_that_hold_no_version_are_left_out_with_a_line(place, looked):
    root, _ = place
    for name in ("notes", "numbers/\u00b2", "numbers/007", "numbers/-1", "straight"):
        (root / name).mkdir(parents=True)
    (root / "straight" / "saved_model.pb").write_bytes(b"")
    (root / "file").write_bytes(b"")
    store = ModelStore(ServeOptions(saved_models=root))
    assert looked(store) == [
        "loaded model, version 1",
        *(
            f"{root / name} holds no version of a model; expected {name}/1/saved_model.pb and so on"
            for name in ("notes", "numbers", "straight")
        ),
    ]
    assert [version.name for version in store.newest()] == ["model"]


NAMES = ["a [2]", "100% b", "blank  s", "\u00e9\u3000\u00fc", "a:b", "#?&+", "line\nfeed", "$x", "\U0001f600" * 60]


@pytest.mark.skipif(sys.platform != "linux", reason="file systems of other systems refuse such names")
def test_models_of_any_name_are_served_and_of_no_name_left_out(place, caplog):
    root, _ = place
    for name in NAMES:
        shutil.copytree(root / "model", root / name)
    nameless = os.fsencode(root) + b"/caf\xe9"
    shutil.copytree(os.fsencode(root / "model"), nameless)
    with running(ServeOptions(saved_models=root)) as server:
        assert {model["name"] for model in server.get("/models").json()} == {"model", *NAMES}
        for name in NAMES:
            answer = server.predict(quote(name, safe=""), GOOD)
            assert answer.status_code == 200 and answer.json()["predictions"][0]["vocals"][0] == [0.5, -0.5]
            assert server.get(f"/v1/models/{quote(name, safe='')}").status_code == 200
            song = server.post(f"/separate?model={quote(name, safe='')}&stem=vocals", data=encoded(noise(10, 1)))
            assert song.status_code == 200
    said = [record.getMessage() for record in caplog.records]
    assert (
        f"{root}/caf\\udce9 is left out: its name is no UTF-8, so no client could ask for it; rename the folder" in said
    )
    assert "\n" not in "".join(said)


@pytest.mark.parametrize("key", ["sources", "sample_rate", "num_channels", "grid_samples", "context_samples"])
@pytest.mark.parametrize("value", [None, "", "missing", 0, -1, True, 1.5, 1e300, float("nan"), 1 << 70, [], {}, [""]])
def test_only_a_contract_that_a_model_can_have_is_loaded(place, key, value):
    root, _ = place
    path = root / "model" / "1" / CONTRACT_FILE
    contract = json.loads(path.read_text())
    contract[key] = value
    if value == "missing":
        del contract[key]
    path.write_text(json.dumps(contract))
    store = ModelStore(ServeOptions(saved_models=root))
    store.scan()
    # 1 << 70 is more than any block has, as is `None`: then blocks are faded into each other.
    if key == "context_samples" and (value is None or value is not True and value in (0, 1 << 70)):
        assert [version.name for version in store.newest()] == ["model"]
        return
    (status,) = store.status("model")["model_version_status"]
    assert status["state"] == "END" and not store.newest()
    message = status["status"]["error_message"]
    assert f"is damaged: {key} is " in message and "\n" not in message
