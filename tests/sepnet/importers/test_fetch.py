"""Downloads and archives, from a server on this machine that breaks off, redirects and lies."""

import errno
import hashlib
import http.client
import http.server
import io
import os
import tarfile
import threading
import zipfile

import numpy as np
import pytest

from pipelines.errors import UserError
from sepnet.importers.files.archives import MOST_BYTES, only_file, unpacked
from sepnet.importers.files.fetch import fetch

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
# A broken answer stops here.
BREAKS_AT = 100_000


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append((self.path, self.headers.get("Range")))
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/whole")
            self.end_headers()
            return
        if self.path == "/missing":
            self.send_error(404)
            return
        first = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) if "Range" in self.headers else 0
        if self.path == "/no-ranges":
            first = 0
        if first >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(CONTENT) - first))
        self.end_headers()
        breaks = self.path == "/breaks" and not first
        self.wfile.write(CONTENT[first : BREAKS_AT if breaks else None])

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.seen = []
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("place", ["whole", "moved"])
def test_a_file_is_fetched_once(server, tmp_path, place):
    for _ in range(2):
        fetch(f"{server.url}/{place}", tmp_path / "cache" / "file", SHA256)
    assert (tmp_path / "cache" / "file").read_bytes() == CONTENT
    assert [path for path, _ in server.seen].count("/whole") == 1
    assert os.listdir(tmp_path / "cache") == ["file"]


def test_a_download_that_broke_off_goes_on(server, tmp_path):
    with pytest.raises(UserError, match=r"broke off after 100000 of 300000 bytes.*start again to go on"):
        fetch(f"{server.url}/breaks", tmp_path / "file", SHA256)
    assert os.listdir(tmp_path) == ["file.part"]
    fetch(f"{server.url}/breaks", tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert [asked for _, asked in server.seen] == [None, f"bytes={BREAKS_AT}-"]


def test_a_server_that_knows_no_ranges_gives_the_whole_again(server, tmp_path):
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    # Its answer would be 206 for a range.
    fetch(f"{server.url}/no-ranges", tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_thrown_away(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT + b"x")
    with pytest.raises(UserError, match="is shorter than what was fetched of it before; start again"):
        fetch(f"{server.url}/whole", tmp_path / "file", SHA256)
    assert os.listdir(tmp_path) == []


def test_a_part_that_is_whole_is_taken(server, tmp_path):
    """A kill may come between the last byte and the check."""
    (tmp_path / "file.part").write_bytes(CONTENT)
    fetch(f"{server.url}/whole", tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT and os.listdir(tmp_path) == ["file"]


def test_a_network_that_fails_is_no_full_disk(server, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EHOSTUNREACH, "No route to host")

    monkeypatch.setattr(http.client.HTTPResponse, "read", fail)
    with pytest.raises(UserError, match=r"cannot be fetched \(No route to host\); start again to go on with it"):
        fetch(f"{server.url}/whole", tmp_path / "file", SHA256)


@pytest.mark.parametrize(
    ("place", "sha256", "message"),
    [
        ("/whole", "0" * 64, "another file than the one that was published"),
        ("/missing", SHA256, "answers 404 Not Found; give --weights"),
        (":1/whole", SHA256, "cannot be fetched"),
        ("nowhere.invalid/", SHA256, "cannot be fetched"),
    ],
)
def test_what_cannot_be_fetched_leaves_nothing(server, tmp_path, place, sha256, message):
    url = {":1/whole": "http://127.0.0.1:1/whole", "nowhere.invalid/": "http://nowhere.invalid/"}.get(place)
    with pytest.raises(UserError, match=message) as caught:
        fetch(url or server.url + place, tmp_path / "file", sha256)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no disk that is always full")
def test_a_full_disk_is_told_of(server, tmp_path):
    (tmp_path / "file.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"cannot write .*file\.part: No space left on device; make room"):
        fetch(f"{server.url}/whole", tmp_path / "file", SHA256)


def test_two_that_want_one_file_fetch_it_once(server, tmp_path):
    threads = [
        threading.Thread(target=fetch, args=(f"{server.url}/whole", tmp_path / "file", SHA256)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.seen) == 1 and (tmp_path / "file").read_bytes() == CONTENT


def write_tar(path, members, mode="w:gz", **options):
    with tarfile.open(path, mode, **options) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            elif isinstance(content, tuple):
                member.type, member.linkname = content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def write_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            if isinstance(content, tuple):
                info = zipfile.ZipInfo(name)
                info.external_attr = 0o120777 << 16
                archive.writestr(info, content[1])
            else:
                archive.writestr(name, content)
    return path


@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_the_wanted_files_alone_are_unpacked(tmp_path, write):
    members = {"models/a/model.index": b"index", "models/a/._model.index": b"mac", "models/a/model.meta": b"meta"}
    with unpacked(write(tmp_path / "archive", {"a.index/": b"", **members}), ["*.index"]) as folder:
        assert [path.name for path in folder.iterdir()] == ["model.index"]
        assert (folder / "model.index").read_bytes() == b"index"
    assert not folder.exists()


def write_folder(path, members):
    for name, content in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


@pytest.mark.parametrize("write", [write_tar, write_zip, write_folder])
def test_of_networks_side_by_side_the_wanted_one_is_taken(tmp_path, write):
    names = ("a/vocals-1.index", "a/vocals-1.data-00000-of-00001", "b/drums-1.index", "c/vocals-1.meta")
    place = write(tmp_path / "models", dict.fromkeys(names, b"content"))
    with unpacked(place, ["vocals-*.index", "vocals-*.data-*"]) as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["vocals-1.data-00000-of-00001", "vocals-1.index"]
        assert (folder / "vocals-1.index").read_bytes() == b"content"


def test_a_folder_of_an_own_training_may_call_its_files_otherwise(tmp_path):
    place = write_folder(tmp_path / "own", {"1-2001.index": b"content", "1/2-2001.index": b"content"})
    with unpacked(place, ["vocals-*.index"]) as folder:
        assert only_file(folder, ".index").name == "1-2001.index"
        with pytest.raises(UserError, match=r"must hold one file \.ckpt or \.onnx; it holds none; give --weights one"):
            only_file(folder, ".ckpt", ".onnx")


@pytest.mark.parametrize("write", [write_tar, write_zip, write_folder])
def test_of_several_files_of_one_name_none_is_taken(tmp_path, write):
    place = write(tmp_path / "runs", {"v0/last.ckpt": b"first", "v1/last.ckpt": b"second"})
    with pytest.raises(UserError, match=r"runs holds several files last\.ckpt"), unpacked(place, ["*.ckpt"]):
        pass


@pytest.mark.parametrize("write", [write_tar, write_zip])
@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"../model.index": b"index"}, "leads outside"),
        ({"/tmp/model.index": b"index"}, "leads outside"),
        ({"model.index": (tarfile.SYMTYPE, "/etc/passwd")}, "a link"),
        ({"model.meta": b"meta"}, "holds no file of"),
    ],
)
def test_archives_that_reach_outside_are_refused(tmp_path, write, members, message):
    with pytest.raises(UserError, match=message), unpacked(write(tmp_path / "archive", members), ["*.index"]):
        pass


def test_bombs_are_refused_before_they_are_unpacked(tmp_path):
    path = tmp_path / "archive"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("model.index")
        member.size = MOST_BYTES + 1
        # The header alone: what it announces never comes.
        archive.fileobj.write(member.tobuf())
    with pytest.raises(UserError, match="holds more than 2 GiB"), unpacked(path, ["*.index"]):
        pass


@pytest.mark.parametrize(("mode", "options"), [("w:bz2", {"compresslevel": 1}), ("w:xz", {"preset": 0})])
def test_archives_with_a_wrong_byte_are_refused(tmp_path, mode, options):
    # Digits are compressed, and into several blocks.
    path = write_tar(tmp_path / "archive", {"model.index": CONTENT.hex().encode()}, mode, **options)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"), unpacked(path, ["*.index"]):
        pass


def test_a_zip_whose_directory_is_elsewhere_is_refused(tmp_path):
    path = write_zip(tmp_path / "archive", {"model.index": b"index"})
    content = bytearray(path.read_bytes())
    # The last bytes but two tell where the directory begins.
    content[-3] ^= 255
    path.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"), unpacked(path, ["*.index"]):
        pass


def test_pipes_are_refused(tmp_path):
    os.mkfifo(tmp_path / "archive")
    with pytest.raises(UserError, match="is a pipe or a device"), unpacked(tmp_path / "archive", ["*.index"]):
        pass


@pytest.mark.parametrize("num_bytes", [12, 20, 60])
def test_archives_of_which_little_came_are_refused(tmp_path, num_bytes):
    path = write_tar(tmp_path / "archive", {"model.index": CONTENT}, "w:gz")
    path.write_bytes(path.read_bytes()[:num_bytes])
    with pytest.raises(UserError, match="is damaged|is no archive"), unpacked(path, ["*.index"]):
        pass


def test_encrypted_archives_are_refused(tmp_path):
    path = write_zip(tmp_path / "archive", {"model.index": b"index"})
    content = bytearray(path.read_bytes())
    # The flags of the file's own header, and of that in the directory at the end.
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + place] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"or encrypted \(.*; .*give --weights"), unpacked(path, ["*.index"]):
        pass


@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_damaged_archives_are_refused(tmp_path, write):
    path = write(tmp_path / "archive", {"model.index": CONTENT, "model.data": CONTENT})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    message = "is damaged" if write is write_tar else "is no archive"
    with pytest.raises(UserError, match=message), unpacked(path, ["*.index", "*.data"]):
        pass


@pytest.mark.parametrize(
    ("given", "wanted", "found"),
    [
        ("model.ckpt", ["*.ckpt", "*.onnx"], ["model.ckpt"]),
        ("model.index", ["*.index", "*.data-*"], ["model.data-00000-of-00001", "model.index"]),
    ],
)
def test_what_lies_beside_a_file_is_left_but_for_the_parts_of_its_checkpoint(tmp_path, given, wanted, found):
    for name in ("model.ckpt", "model.onnx", "model.data-00000-of-00001", "other.data-00000-of-00001"):
        (tmp_path / name).write_bytes(CONTENT)
    # A link to a file of another name, as caches of downloads keep them.
    (tmp_path / "0123").write_bytes(CONTENT)
    (tmp_path / "model.index").symlink_to("0123")
    with unpacked(tmp_path / given, wanted) as folder:
        assert sorted(path.name for path in folder.iterdir()) == found
        assert all(path.read_bytes() == CONTENT for path in folder.iterdir())


def test_errors_name_the_file_that_was_given(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(CONTENT)
    archive = write_tar(tmp_path / "archive", {"models/model.ckpt": CONTENT})
    for given, named in ((tmp_path / "model.ckpt", tmp_path / "model.ckpt"), (archive, archive / "model.ckpt")):
        with pytest.raises(UserError) as raised, unpacked(given, ["*.ckpt"]) as folder:
            raise UserError(f"{folder / 'model.ckpt'} is of another network")
        assert str(raised.value) == f"{named} is of another network"


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="does not exist"), unpacked(tmp_path / "none", ["*.index"]):
        pass
