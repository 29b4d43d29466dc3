"""The models under `saved_models/`: new versions are picked up, old ones go when nobody uses them any more."""

import contextlib
import dataclasses
import gc
import logging
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

from pipelines.errors import UserError
from sepnet.export import versions
from sepnet.serving.errors import BAD_REQUEST, NOT_FOUND, ApiError
from sepnet.serving.options import ServeOptions
from sepnet.serving.versions import AVAILABLE, END, LOADING, UNLOADING, LoadedVersion, fingerprint

LOGGER = logging.getLogger("uvicorn.error")


@dataclasses.dataclass
class _Entry:
    """What the store knows of one version, whether it is in memory or not."""

    state: str
    seen: tuple = ()
    loaded: LoadedVersion | None = None
    error_code: str = "OK"
    error_message: str = ""

    def status(self, number: int) -> dict[str, Any]:
        """As TensorFlow Serving's `ModelVersionStatus`."""
        status = {"error_code": self.error_code, "error_message": self.error_message}
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
        self._retired: list[tuple[_Entry, LoadedVersion]] = []
        self._has_garbage = False
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
        """Looks at the folder once."""
        root = self._options.saved_models
        folders = {}
        # Of what vanishes meanwhile, nothing is left to serve.
        with contextlib.suppress(OSError):
            folders = {path.name: path for path in root.iterdir() if path.is_dir() and path.name[0] != "."}
        for name in sorted(set(folders) | set(self._models)):
            self._scan_model(name, folders.get(name))
        if self._has_garbage:
            # A model is a circle of references, and too large to wait until Python looks for those by itself.
            self._has_garbage = False
            gc.collect()

    def _scan_model(self, name: str, folder: pathlib.Path | None) -> None:
        labelled = {number for (model, _), number in self._options.labels.items() if model == name}
        numbers = versions(folder) if folder else []
        wanted: set[int] = set()
        for number in reversed(numbers):
            newest_are_there = len(wanted) >= self._options.num_versions
            if (number in labelled or not newest_are_there) and self._keep(name, number, folder / str(number)):
                wanted.add(number)
        for number in set(self._models.get(name, ())) - wanted:
            self._retire(name, number)

    def _keep(self, name: str, number: int, path: pathlib.Path) -> bool:
        """Loads a version unless it is there as it is on the disk; returns whether it serves."""
        try:
            seen = fingerprint(path)
        except OSError:
            return False
        with self._lock:
            entry = self._models.setdefault(name, {}).setdefault(number, _Entry(LOADING))
            if entry.seen == seen:
                return entry.loaded is not None
            if entry.loaded is None:
                entry.state = LOADING
        try:
            loaded = LoadedVersion(name, number, path)
        except Exception as error:
            # Whatever a damaged file makes libraries do, the other models are served.
            if not isinstance(error, UserError):
                LOGGER.exception("cannot load %s", path)
            with self._lock:
                entry.seen, entry.error_code, entry.error_message = seen, "FAILED_PRECONDITION", str(error)
                if entry.loaded is None:
                    entry.state = END
                # One that was in memory before its files changed goes on.
                return entry.loaded is not None
        with self._lock:
            replaced = entry.loaded
            self._has_garbage |= replaced is not None
            entry.seen, entry.state, entry.loaded = seen, AVAILABLE, loaded
            entry.error_code, entry.error_message = "OK", ""
            if replaced and replaced.leases:
                self._retired.append((_Entry(UNLOADING), replaced))
        return True

    def _retire(self, name: str, number: int) -> None:
        with self._lock:
            entry = self._models[name][number]
            if entry.loaded is None:
                # Damaged, or gone already: what the status says stays, as long as the folder is there.
                return
            loaded, entry.loaded, entry.seen = entry.loaded, None, ()
            self._has_garbage = True
            entry.state = UNLOADING if loaded.leases else END
            if loaded.leases:
                self._retired.append((entry, loaded))

    @contextlib.contextmanager
    def lease(self, name: str, number: int | None = None, label: str | None = None) -> Iterator[LoadedVersion]:
        """Gives a version that stays in memory until the block ends: the newest, or one by its number or label.

        Raises:
            ApiError: there is none.
        """
        with self._lock:
            loaded = self._find(name, number, label)
            loaded.leases += 1
        try:
            yield loaded
        finally:
            with self._lock:
                loaded.leases -= 1
                done = [(entry, version) for entry, version in self._retired if not version.leases]
                for entry, _ in done:
                    if entry.state == UNLOADING:
                        entry.state = END
                self._retired = [pair for pair in self._retired if pair[1].leases]
                self._has_garbage |= bool(done)

    def _find(self, name: str, number: int | None, label: str | None) -> LoadedVersion:
        if label is not None:
            number = self._labelled(name, label)
        entries = self._models.get(name, {})
        serving = {key: entry.loaded for key, entry in entries.items() if entry.loaded}
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
            ApiError: it is not known.
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
            models = {
                name: [entry.loaded for entry in entries.values() if entry.loaded]
                for name, entries in self._models.items()
            }
        return [max(loaded, key=lambda version: version.number) for _, loaded in sorted(models.items()) if loaded]
