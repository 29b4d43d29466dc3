"""Manifests: tables with a path and a caption for each song."""

import codecs
import contextlib
import csv
import json
import math
import pathlib
import posixpath
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from pipelines.captioned.captions import caption_text
from pipelines.captioned.songs import CaptionedSong
from pipelines.errors import UserError, check_packages, one_line
from pipelines.songs.files_below import without_suffix
from pipelines.storage import address_of, is_local, open_place, reaching

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

COLUMNS = ("path", "caption")


def read_manifest(address: str) -> Iterator[tuple[str, CaptionedSong]]:
    """Yields the songs of a manifest, each with the place of its row, which stands before it in errors.

    Args:
        address: of a file with a suffix of `READERS`.

    Raises:
        UserError: it cannot be read, a column is missing, a path leads outside its folder, or to no file.
    """
    system, path = open_place(address)
    folder = path.rpartition("/")[0]
    with reaching(address), system.open(path, "rb") as file:
        rows = READERS[posixpath.splitext(path)[1].lower()](file, address)
        found = [(where, *_song(system, folder, row, where)) for where, row in rows]
    _check_files(system, [(where, place) for where, place, _ in found])
    for where, _, song in found:
        yield where, song


def _song(system: "AbstractFileSystem", folder: str, row: dict[str, Any], where: str) -> tuple[str, CaptionedSong]:
    """The path and the song of a row."""
    relative = _relative(row, where)
    path = f"{folder}/{relative}"
    song_id = _id(row.get("id"), where) or one_line(without_suffix(pathlib.PurePosixPath(relative)))
    caption = caption_text(row["caption"], where)
    return path, CaptionedSong(song_id, caption, address_of(system, path), posixpath.splitext(relative)[1])


def _relative(row: dict[str, Any], where: str) -> str:
    missing = [name for name in COLUMNS if name not in row]
    if missing:
        found = ", ".join(map(repr, row)) or "no columns"
        raise UserError(f"{where} has no {' and no '.join(map(repr, missing))}, but {found}; name the columns so")
    path = row["path"]
    if not isinstance(path, str) or not path:
        raise UserError(f"{where}: the path is {path!r}; expected one relative to the manifest's folder")
    relative = posixpath.normpath(path)
    if posixpath.isabs(relative) or relative.split("/")[0] == "..":
        raise UserError(f"{where}: {path!r} leads outside the manifest's folder; move the song there")
    return relative


def _id(value: Any, where: str) -> str:
    """The id of a row, empty if it has none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UserError(f"{where}: the id is {value!r}; expected text or a whole number")
    return one_line(value)


def _check_files(system: "AbstractFileSystem", places: list[tuple[str, str]]) -> None:
    """Raises a `UserError` if there is no file at one of the places; elsewhere than here, folders are listed first."""
    listed = set()
    if not is_local(system):
        for folder in sorted({place.rpartition("/")[0] for _, place in places}):
            # Of a folder that is not there, the file is named below.
            with reaching(address_of(system, folder)), contextlib.suppress(FileNotFoundError):
                listed |= {entry["name"] for entry in system.ls(folder, detail=True) if entry["type"] == "file"}
    for where, place in places:
        with reaching(address_of(system, place)):
            if place not in listed and not system.isfile(place):
                raise UserError(f"{where}: there is no file {address_of(system, place)}; correct the path, or add it")


def _json_lines(file: BinaryIO, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        where = f"line {number} of {name}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{where} is no JSON ({one_line(error)}); expected an object on each line") from error
        if not isinstance(row, dict):
            raise UserError(f"{where} is no object; expected one like {{'path': 'song.flac', 'caption': 'a song'}}")
        yield where, row


def _csv(file: BinaryIO, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    # A byte order mark is what spreadsheets begin with.
    reader = csv.DictReader(codecs.iterdecode(file, "utf-8-sig"), strict=True)
    try:
        for row in reader:
            where = f"line {reader.line_num} of {name}"
            if None in row or None in row.values():
                raise UserError(f"{where} has not the {len(reader.fieldnames)} cells of the first line; quote its text")
            yield where, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"line {reader.line_num} of {name} is no CSV in UTF-8 ({one_line(error)})") from error


def _parquet(file: BinaryIO, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    check_packages(["pyarrow"], "Parquet files", "augment")
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file)
        wanted = [column for column in table.schema_arrow.names if column in (*COLUMNS, "id")]
        missing = set(COLUMNS).difference(wanted)
        number = 0
        for batch in table.iter_batches(columns=None if missing else wanted):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number} of {name}", row
    except pyarrow.ArrowException as error:
        raise UserError(f"{name} is no Parquet file ({one_line(error)}); write it once more") from error


# How the rows of a manifest are read, by its suffix.
READERS: dict[str, Callable[[BinaryIO, str], Iterator[tuple[str, dict[str, Any]]]]] = {
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".parquet": _parquet,
}
