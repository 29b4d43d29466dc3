"""The models under `saved_models/`: new versions are picked up, old ones go when nobody uses them any more."""

import contextlib
import dataclasses
import gc
import logging
import os
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

from pipelines.captioned.captions import is_unicode
from pipelines.errors import UserError, one_line
from sepnet.export.write import versions
from sepnet.serving.engine.errors import BAD_REQUEST, NOT_FOUND, ApiError
from sepnet.serving.engine.options import ServeOptions
from sepnet.serving.engine.versions import AVAILABLE, END, LOADING, UNLOADING, LoadedVersion, fingerprint

LOGGER = logging.getLogger(__name__)
GRAPH_FILE = "saved_model.pb"
# What is not there any more. After any other error of the disk, or with no file left to open, it may well be there.
GONE = (FileNotFoundError, NotADirectoryError)


@dataclasses.dataclass
class _Entry:
    """The state of one version, in memory or not."""

    state: str = LOADING
    seen: tuple | None = None
    loaded: LoadedVersion | None = None
    error: str = ""

    def status(self, number: int) -> dict[str, Any]:
        """The JSON of TensorFlow Serving's `ModelVersionStatus`."""
        status = {"error_code": "FAILED_PRECONDITION" if self.error else "OK", "error_message": self.error}
        return {"version": str(number), "state": self.state, "status": status}


class ModelStore:
    """Keeps the newest good versions of every model in memory.

    A version is loaded before an older one goes, and one that cannot be loaded changes nothing but the status. One that
    is replaced or removed on the disk serves those who have begun with it until they are done.

    Args:
        options: `saved_models`, `labels`, `num_versions` and `poll_seconds` are read.
    """

    def __init__(self, options: ServeOptions):
        self._options = options
        self._lock = threading.Lock()
        self._models: dict[str, dict[int, _Entry]] = {}
        # Versions that leave when their last request is done, and what is told of them.
        self._leaving: dict[LoadedVersion, _Entry] = {}
        self._has_garbage = False
        # The last message about each folder, so that it is not logged again at every look.
        self._told: dict[str, str] = {}
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="models", daemon=True)

    def start(self) -> None:
        """Loads what is there, and goes on watching."""
        self.scan()
        self._watcher.start()

    def stop(self) -> None:
        """Ends the watching."""
        self._stop.set()
        if self._watcher.is_alive():
            self._watcher.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._options.poll_seconds):
            self.scan()

    def scan(self) -> None:
        """Looks at the folder once; where it cannot be read, everything stays as it is."""
        try:
            folders = self._folders()
        except OSError as error:
            self._tell("", f"cannot be read: {error.strerror}")
            return
        for name in sorted(set(folders) | set(self._models)):
            self._scan_model(name, folders.get(name))
        if self._has_garbage:
            # A model is a reference cycle, and too large to wait for Python's own garbage collection.
            self._has_garbage = False
            gc.collect()
        self._tell("", "" if self.newest() else _why_none(self._options.saved_models))

    def _folders(self) -> dict[str, pathlib.Path]:
        """Entries that may be folders of models, by name."""
        try:
            return {path.name: path for path in self._options.saved_models.iterdir() if path.name[0] != "."}
        except GONE:
            return {}

    def _tell(self, name: str, text: str) -> None:
        """Logs what is to be known of a folder, "" for the folder of all, unless that was said last."""
        if self._told.get(name, "") == text:
            return
        self._told[name] = text
        if text:
            LOGGER.warning("%s %s", one_line(self._options.saved_models / name), one_line(text))

    def _scan_model(self, name: str, folder: pathlib.Path | None) -> None:
        labelled = {number for (model, _), number in self._options.labels.items() if model == name}
        try:
            numbers = self._versions(name, folder) if folder else []
        except OSError as error:
            self._tell(name, f"cannot be read: {error.strerror}")
            return
        wanted: set[int] = set()
        for number in reversed(numbers):
            newest_are_there = len(wanted) >= self._options.num_versions
            if (number in labelled or not newest_are_there) and self._keep(name, number, folder / str(number)):
                wanted.add(number)
        for number in set(self._models.get(name, ())) - wanted:
            self._retire(name, number)

    def _versions(self, name: str, folder: pathlib.Path) -> list[int]:
        """The versions of a model."""
        try:
            numbers = versions(folder)
        except GONE:
            return []
        said = ""
        if numbers and not is_unicode(name):
            numbers = []
            said = "is left out: its name is no UTF-8, so no client could ask for it; rename the folder"
        # Folders that belong to a version are reported by `_why_none`, with the folder that should have been named.
        elif not numbers and folder.is_dir() and not name.isdigit() and not _holds_graph(folder.parent):
            said = f"holds no version of a model; expected {name}/1/{GRAPH_FILE} and so on"
        self._tell(name, said)
        return numbers

    def _keep(self, name: str, number: int, path: pathlib.Path) -> bool:
        """Loads a version unless it is there as it is on the disk; returns whether it serves."""
        try:
            seen = fingerprint(path)
        except GONE:
            # The folder is being removed.
            return False
        except OSError as error:
            self._tell(f"{name}/{number}", f"cannot be read: {error.strerror}")
            with self._lock:
                return number in self._serving(name)
        self._tell(f"{name}/{number}", "")
        with self._lock:
            entry = self._models.setdefault(name, {}).setdefault(number, _Entry())
            if entry.seen == seen:
                return entry.loaded is not None
            if entry.loaded is None:
                entry.state = LOADING
        try:
            loaded = LoadedVersion(name, number, path)
        except Exception as error:
            # A damaged file may make libraries raise any error; the other models are still served.
            reason, is_unforeseen = one_line(error), not isinstance(error, UserError)
            LOGGER.error("cannot load %s, version %d: %s", name, number, reason, exc_info=is_unforeseen)
            with self._lock:
                entry.seen, entry.error = seen, reason
                if entry.loaded is None:
                    entry.state = END
                # One that was in memory before its files changed goes on.
                return entry.loaded is not None
        with self._lock:
            replaced = entry.loaded
            self._has_garbage |= replaced is not None
            entry.seen, entry.state, entry.loaded, entry.error = seen, AVAILABLE, loaded, ""
            if replaced and replaced.leases:
                self._leaving[replaced] = _Entry()
        LOGGER.info("%s %s, version %d", "loaded anew:" if replaced else "loaded", one_line(name), number)
        return True

    def _retire(self, name: str, number: int) -> None:
        with self._lock:
            entry = self._models[name][number]
            if entry.loaded is None:
                # Damaged, or gone already: what the status says stays.
                return
            loaded, entry.loaded, entry.seen = entry.loaded, None, None
            self._has_garbage = True
            entry.state = UNLOADING if loaded.leases else END
            if loaded.leases:
                self._leaving[loaded] = entry
        LOGGER.info("removed %s, version %d", one_line(name), number)

    @contextlib.contextmanager
    def lease(self, name: str, number: int | None = None, label: str | None = None) -> Iterator[LoadedVersion]:
        """Gives a version that stays in memory until the block ends: the newest, or one by its number or label.

        Raises:
            ApiError: no such version is served.
        """
        with self._lock:
            loaded = self._find(name, number, label)
            loaded.leases += 1
        try:
            yield loaded
        finally:
            with self._lock:
                loaded.leases -= 1
                if not loaded.leases and (entry := self._leaving.pop(loaded, None)):
                    self._has_garbage = True
                    if entry.state == UNLOADING:
                        entry.state = END

    def _find(self, name: str, number: int | None, label: str | None) -> LoadedVersion:
        if label is not None:
            number = self._labelled(name, label)
        serving = self._serving(name)
        wanted = max(serving, default=None) if number is None else number
        if wanted not in serving:
            asked = f"Latest({name})" if number is None else f"Specific({name}, {number})"
            raise ApiError(NOT_FOUND, f"Servable not found for request: {asked}")
        return serving[wanted]

    def _labelled(self, name: str, label: str) -> int:
        try:
            return self._options.labels[name, label]
        except KeyError as error:
            raise ApiError(BAD_REQUEST, f"Unrecognized servable version label: {label}") from error

    def status(self, name: str, number: int | None = None, label: str | None = None) -> dict[str, Any]:
        """TensorFlow Serving's status of a model, the newest version first.

        Raises:
            ApiError: the model, version or label is not known.
        """
        if label is not None:
            number = self._labelled(name, label)
        with self._lock:
            entries = self._models.get(name, {})
            if number is None and not entries:
                raise ApiError(NOT_FOUND, f"Could not find any versions of model {name}")
            if number is not None and number not in entries:
                raise ApiError(NOT_FOUND, f"Could not find version {number} of model {name}")
            numbers = sorted(entries, reverse=True) if number is None else [number]
            return {"model_version_status": [entries[key].status(key) for key in numbers]}

    def newest(self) -> list[LoadedVersion]:
        """The newest version of every model that can be asked, by name."""
        with self._lock:
            return [serving[max(serving)] for name in sorted(self._models) if (serving := self._serving(name))]

    def _serving(self, name: str) -> dict[int, LoadedVersion]:
        return {number: entry.loaded for number, entry in self._models.get(name, {}).items() if entry.loaded}


def _why_none(root: pathlib.Path) -> str:
    """Says that a folder has no model that can be asked, and what to do."""
    try:
        is_model = any(path.name.isdigit() and _holds_graph(path) for path in root.iterdir())
        above = root.resolve().parent
    except OSError as error:
        return f"cannot be read, so no model is served: {error.strerror}"
    if _holds_graph(root):
        return f"is one version of a model, so no model is served; name the folder of models instead: {above.parent}"
    if is_model:
        return f"is itself a model, so no model is served; name its parent instead: {above}"
    return "holds no model that can be served; waiting for one, as sepnet.train exports it"


def _holds_graph(folder: pathlib.Path) -> bool:
    return os.path.isfile(folder / GRAPH_FILE)
