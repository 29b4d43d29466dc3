"""Packages of Debian, made by hand: an `ar` archive with a compressed tar archive in it."""

import hashlib
import io
import pathlib
import tarfile

import pytest

from benchmarks.debian import Package


@pytest.fixture
def write_package(tmp_path):
    """Writes a package of files by name, and of links by name where a content is a text; returns its `Package`."""

    def write(name: str, files: dict[str, bytes | str], parts=(), folder: str = "packages") -> Package:
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w:xz") as archive:
            for path, content in files.items():
                member = tarfile.TarInfo(path)
                if isinstance(content, str):
                    member.type, member.linkname, content = tarfile.SYMTYPE, content, b""
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": data.getvalue()}
        whole = b"!<arch>\n" + b"".join(
            f"{key:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(text):<10}`\n".encode() + text + b"\n" * (len(text) % 2)
            for key, text in members.items()
        )
        path = tmp_path / folder / f"{name}_1%3a2-3_all.deb"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(whole)
        versions = {"1:2-3": {"bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}}
        return Package(name, "MIT", versions, parts)

    return write


@pytest.fixture
def snapshot():
    """Everything below a folder: names, contents, and when they were written."""

    def take(folder: pathlib.Path) -> dict[pathlib.Path, tuple[int, bytes]]:
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}

    return take
