"""Collections: every form on every kind of storage, and what is wrong with those that users have."""

import csv
import io
import json
import pathlib
import pickle
import tarfile
import tempfile

import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest

from pipelines.captioned.collection import read_collection
from pipelines.errors import RunError, UserError

CAPTION = 'She said "go", and\nwent; 🎻 naïve'
# Nothing here is decoded.
AUDIO = {"a/one.flac": b"first audio", "b.two.mp3": b"second audio" * 1000}


def put(address: str, files: dict[str, bytes | str]) -> str:
    for name, content in files.items():
        with fsspec.open(f"{address}/{name}", "wb", auto_mkdir=True) as file:
            file.write(content.encode() if isinstance(content, str) else content)
    return address


def make_tar(members: dict[str, bytes | str]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members.items():
            content = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def make_csv(*rows: list[str]) -> str:
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    return file.getvalue()


def make_parquet(**columns: list) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), file)
    return file.getvalue()


def make_jsonl(*rows: dict) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


PATHS, CAPTIONS = list(AUDIO), [CAPTION, ""]
MANIFESTS = {
    "songs.jsonl": make_jsonl(
        *({"path": p, "caption": c or float("nan")} for p, c in zip(PATHS, CAPTIONS, strict=True))
    ),
    "songs.csv": make_csv(["path", "year", "caption"], [PATHS[0], "1", CAPTION], [PATHS[1], "2", ""]),
    "songs.parquet": make_parquet(path=PATHS, caption=[CAPTION, None]),
}


def contents(source: str) -> dict[str, tuple[str, bytes, str]]:
    """Captions, audio and suffixes by id, of songs that were sent to another process, and nothing left afterwards."""
    found = {}
    for song in pickle.loads(pickle.dumps(read_collection(source))):
        with song.open_local() as path:
            found[song.id] = (song.caption, path.read_bytes(), path.suffix)
        assert path.exists() == (str(path) == song.address)
    assert list(found) == sorted(found)
    return found


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests(anywhere, name):
    put(anywhere, {**AUDIO, name: MANIFESTS[name]})
    assert contents(f"{anywhere}/{name}") == {
        "a/one": (CAPTION, AUDIO["a/one.flac"], ".flac"),
        "b.two": ("", AUDIO["b.two.mp3"], ".mp3"),
    }


def test_folders(anywhere):
    captions = {"a/one.json": json.dumps({"text": CAPTION}), "b.two.txt": "\ufeffcalm\n", "b.two.json": "ignored"}
    left_by_systems = {"__MACOSX/a/one.flac": b"", "a/._one.flac": b"", "cover.jpg": b""}
    put(anywhere, {**AUDIO, "Third.OGG": b"3", "Third.TXT": "loud", **captions, **left_by_systems})
    assert contents(anywhere) == {
        "Third": ("loud", b"3", ".OGG"),
        "a/one": (CAPTION, AUDIO["a/one.flac"], ".flac"),
        "b.two": ("calm", AUDIO["b.two.mp3"], ".mp3"),
    }


@pytest.mark.parametrize("pattern", ["", "/x/songs-{00..01}.tar", "/x/songs-00.tar"])
def test_shards(anywhere, pattern):
    first = {"./000.flac": AUDIO["a/one.flac"], "./000.json": json.dumps({"caption": CAPTION}), "./000.cls": "3"}
    second = {"000.txt": "calm", "000.mp3": AUDIO["b.two.mp3"], "sub/001.wav": b"no caption", "._000.mp3": "system"}
    put(anywhere, {"x/songs-00.tar": make_tar(first), "x/songs-01.tar": make_tar(second)})
    # A shard is called by where it lies below what the user named.
    folder = "" if pattern else "x/"
    expected = {
        f"{folder}songs-00/000": (CAPTION, AUDIO["a/one.flac"], ".flac"),
        f"{folder}songs-01/000": ("calm", AUDIO["b.two.mp3"], ".mp3"),
        f"{folder}songs-01/sub/001": ("", b"no caption", ".wav"),
    }
    found = contents(anywhere + pattern)
    assert found == (dict([*expected.items()][:1]) if pattern.endswith("00.tar") else expected)


def test_ids_are_those_of_the_column_or_the_path(tmp_path):
    rows = [{"path": "a/one.flac", "caption": "", "id": 7}, {"path": "./a//../b.two.mp3", "caption": "", "id": None}]
    put(str(tmp_path), {**AUDIO, "songs.jsonl": make_jsonl(*rows)})
    assert [song.id for song in read_collection(str(tmp_path / "songs.jsonl"))] == ["7", "b.two"]


def test_names_may_be_any_bytes(tmp_path):
    name = "caf\udce9\n.wav"
    (tmp_path / name).write_bytes(b"audio")
    assert contents(str(tmp_path)) == {"caf\\udce9\\n": ("", b"audio", ".wav")}


def test_audio_of_local_shards_is_passed_over(tmp_path):
    # Of a sparse file of a terabyte, all that is not passed over would be read for hours.
    size = 1 << 40
    info = tarfile.TarInfo("000.wav")
    info.size = size
    with (tmp_path / "big.tar").open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.seek(size, io.SEEK_CUR)
        file.write(make_tar({"000.txt": "long"}))
    [song] = read_collection(str(tmp_path / "big.tar"))
    assert (song.caption, song.num_bytes, song.offset) == ("long", size, 512)


@pytest.mark.parametrize("place", ["in", "out"])
def test_what_is_written_into_the_collection_is_no_part_of_it(anywhere, place):
    put(anywhere, {"a.wav": b"1", "out/audio/a/stem.flac": b"2", "output.wav": b"3"})
    output = f"{anywhere}/out" if place == "in" else f"{anywhere}-elsewhere"
    expected = ["a", "output"] if place == "in" else ["a", "out/audio/a/stem", "output"]
    assert [song.id for song in read_collection(anywhere, output)] == expected


def with_link(**kinds) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        info = tarfile.TarInfo("000.wav")
        info.type, info.linkname = kinds["type"], "/etc/passwd"
        tar.addfile(info)
    return file.getvalue()


WHOLE_TAR = make_tar({"000.wav": b"a" * 2000, "001.wav": b"b" * 2000})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("songs.jsonl", '{"path": "a/one.flac", "caption": ""}\n{"path": ', "line 2 of .*songs.jsonl is no JSON"),
        ("songs.jsonl", "[1]", "line 1 of .*songs.jsonl is no object"),
        ("songs.jsonl", '\n{"path": "a/one.flac", "title": "x"}', "line 2 of .* no 'caption', but 'path', 'title'"),
        ("songs.jsonl", '{"path": "a/one.flac", "caption": 3}', "line 1 .* the caption is 3"),
        ("songs.jsonl", '{"path": "a/one.flac", "caption": "\\ud83d"}', r"line 1 .* the caption is '\\ud83d'"),
        ("songs.jsonl", '{"path": "a/one.flac", "caption": "", "id": 1.5}', "line 1 .* the id is 1.5"),
        ("songs.jsonl", '{"path": "a/one.flac", "caption": "", "id": "../x"}', "the id '../x' is no name"),
        ("songs.jsonl", '{"path": null, "caption": ""}', "line 1 .* the path is None"),
        ("songs.jsonl", "\n", "holds no songs; expected a folder of audio, a manifest"),
        (
            "songs.jsonl",
            make_jsonl({"path": "a/none.flac", "caption": ""}),
            "line 1 of .* there is no file .*none.flac",
        ),
        ("songs.jsonl", make_jsonl({"path": "a", "caption": ""}), "line 1 of .* there is no file .*/a;"),
        ("songs.csv", "", "holds no songs"),
        ("songs.csv", make_csv(["file", "caption"], ["x", "y"]), "line 2 of .* no 'path', but 'file', 'caption'"),
        ("songs.csv", make_csv(["path", "caption"], ["../b.mp3", ""]), "line 2 .*'../b.mp3' leads outside"),
        ("songs.csv", make_csv(["path", "caption"], ["/etc/passwd", ""]), "line 2 .*'/etc/passwd' leads outside"),
        ("songs.csv", "path,caption\na/one.flac,calm, slow\n", "line 2 of .* has not the 2 cells"),
        ("songs.csv", "path,caption\na/one.flac\n", "line 2 of .* has not the 2 cells"),
        ("songs.csv", 'path,caption\na/one.flac,"calm\n', "songs.csv is no CSV"),
        ("songs.csv", b"path,caption\na/one.flac,caf\xe9\n", "songs.csv is no CSV in UTF-8"),
        (
            "songs.parquet",
            make_parquet(path=["a/one.flac"], text=["x"]),
            "row 1 of .* no 'caption', but 'path', 'text'",
        ),
        ("songs.parquet", make_parquet(path=["a/none.flac"], caption=["x"]), "row 1 of .* there is no file"),
        ("songs.parquet", b"PAR1 it is not", "songs.parquet is no Parquet file"),
        (
            "songs.parquet",
            make_parquet(path=["a/one.flac", "b.two.mp3"], caption=["", ""], id=["x", "x"]),
            "row 2 of .* and row 1 of .* have one id, 'x'",
        ),
        ("songs.tar", make_tar({"../000.wav": b""}), "holds '../000.wav', which leads outside"),
        ("songs.tar", make_tar({"/000.wav": b""}), "holds '/000.wav', which leads outside"),
        ("songs.tar", with_link(type=tarfile.SYMTYPE), "holds '000.wav', which is no plain file"),
        ("songs.tar", with_link(type=tarfile.LNKTYPE), "holds '000.wav', which is no plain file"),
        ("songs.tar", make_tar({"000.wav": b"", "000.mp3": b""}), "audio files 000.wav, 000.mp3"),
        ("songs.tar", make_tar({"000.txt": b""}), "no audio beside the caption of '000'"),
        ("songs.tar", make_tar({"000.wav": b"", "000.json": b"{}"}), "000.json in .* holds no keys"),
        ("songs.tar", make_tar({"000.wav": b"", "000.json": b"["}), "000.json in .* holds no caption"),
        ("songs.tar", make_tar({"000.wav": b"", "./000.wav": b""}), "holds './000.wav' twice"),
        ("songs.tar", WHOLE_TAR[:1000], "songs.tar is damaged"),
        ("songs.tar", WHOLE_TAR[:2560] + b"?" * 512 + WHOLE_TAR[3072:], "songs.tar is damaged"),
        ("songs.tar", b"no tar", "songs.tar is damaged"),
        ("songs.txt", "", "songs.txt is another kind of file; expected a folder of audio"),
    ],
)
def test_mistakes_are_named(tmp_path, name, content, message):
    put(str(tmp_path), {**AUDIO, name: content})
    with pytest.raises(UserError, match=message) as caught:
        read_collection(str(tmp_path / name))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("files", "source", "message"),
    [
        ({"cover.jpg": b""}, "", "holds no songs"),
        ({"a.wav": b"", "b.tar": b""}, "", r"holds audio \(a.wav\) and shards \(b.tar\)"),
        ({"a.wav": b"", "a.mp3": b""}, "", "a.wav and .*a.mp3 have one id, 'a'"),
        (
            {"a.wav": b"", "a.json": b'{"title": ""}'},
            "",
            "a.json holds 'title'; expected an object with the key 'caption'",
        ),
        ({"a.wav": b"", "a.txt": b"\xff"}, "", "a.txt holds no caption in UTF-8"),
        ({"a.wav": b""}, "/none", "none is not there"),
        ({"a.tar": make_tar({"1.wav": b""})}, "/{a,b}.tar", "b.tar, one of .*, is no .tar file, or not there"),
        ({"a.tar": make_tar({"1.wav": b""})}, "/{a,b.tar", "braces that do not fit"),
    ],
)
def test_mistakes_in_folders_are_named(anywhere, files, source, message):
    put(anywhere, files)
    with pytest.raises(UserError, match=message):
        read_collection(anywhere + source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing://x", "'nothing://x' cannot be opened"),
        ("zip://a::b.zip", "is an address inside another one"),
    ],
)
def test_addresses_that_nothing_opens_are_named(source, message):
    with pytest.raises(UserError, match=message):
        read_collection(source)


def test_a_song_that_is_gone_or_cut_says_so(tmp_path):
    put(str(tmp_path), {"songs.tar": WHOLE_TAR})
    first, second = read_collection(str(tmp_path))
    (tmp_path / "songs.tar").write_bytes(WHOLE_TAR[:4000])
    with first.open_local() as path:
        assert path.read_bytes() == b"a" * 2000
    with pytest.raises(UserError, match="ends before the audio of songs/001"), second.open_local():
        pass
    (tmp_path / "songs.tar").unlink()
    with pytest.raises(UserError, match="cannot reach .*songs.tar: No such file"), first.open_local():
        pass


def test_what_is_no_songs_fault_ends_a_run(tmp_path, monkeypatch):
    place = f"memory://{tmp_path}"
    put(place, AUDIO)
    song, _ = read_collection(place)

    def message(kind: type[UserError]) -> str:
        with pytest.raises(UserError) as caught, song.open_local():
            pass
        assert type(caught.value) is kind and len(str(caught.value).splitlines()) == 1
        return str(caught.value)

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        assert message(RunError).endswith(
            "one.flac: No such file or directory; make room, or set TMPDIR to another folder"
        )

    system, _ = fsspec.url_to_fs(song.address)
    for error, kind in (
        (ConnectionResetError("it broke off"), RunError),
        (TimeoutError("the token has expired"), RunError),
        (PermissionError("not for you"), UserError),
        (FileNotFoundError("it is gone"), UserError),
    ):

        def fail(*_, error=error, **__):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(type(system), "_open", fail)
            assert message(kind).startswith(f"cannot reach {song.address}: {error}; check")


def test_a_local_file_is_not_copied(tmp_path):
    put(str(tmp_path), {"a.wav": b"audio"})
    [song] = read_collection(str(tmp_path))
    with song.open_local() as path:
        assert path == pathlib.Path(tmp_path / "a.wav")
    assert path.exists()


@pytest.mark.slow
def test_a_bucket_that_is_not_there_is_named(s3_server):
    with pytest.raises(UserError, match="s3://no-such-bucket/songs.csv is not there"):
        read_collection("s3://no-such-bucket/songs.csv")
