"""Files and folders that appear whole or not at all, and folders to work in: apart, and gone afterwards."""

import concurrent.futures
import contextlib
import errno
import itertools
import os

import pytest

from pipelines.errors import UserError
from pipelines.files import (
    check_writable,
    folder_lock,
    new_folder,
    remove_folder,
    remove_leftovers,
    remove_leftovers_of,
    replace_all,
    sole_lock,
    whole_file,
    whole_folder,
    working_folder,
)


def test_those_who_work_in_one_place_do_not_disturb_each_other(tmp_path):
    (tmp_path / "finished").touch()

    def work(number):
        for step in range(200):
            with working_folder(tmp_path) as folder:
                path = folder / f"{number}"
                path.write_text(str(step))
                assert path.read_text() == str(step)

    def abandon(number):
        for step in range(200):
            (tmp_path / f".sepnet-working-{number}-{step}").mkdir()

    with concurrent.futures.ThreadPoolExecutor(6) as threads:
        abandoned = [threads.submit(abandon, number) for number in range(2)]
        list(threads.map(work, range(4)))
        concurrent.futures.wait(abandoned)
    with working_folder(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["finished"]


def test_what_was_abandoned_goes_and_what_is_in_use_stays(tmp_path):
    with working_folder(tmp_path) as in_use:
        abandoned = in_use.with_name(f"{in_use.name}x")
        abandoned.mkdir()
        with working_folder(tmp_path):
            assert in_use.exists() and not abandoned.exists()


def test_the_folder_of_another_user_is_passed_over(tmp_path, monkeypatch):
    theirs = tmp_path / ".sepnet-working-theirs"
    theirs.mkdir()
    opened = os.open

    def refuse(path, *arguments, **keywords):
        # Root may open everything.
        if path == theirs:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *arguments, **keywords)

    monkeypatch.setattr(os, "open", refuse)
    with working_folder(tmp_path) as folder:
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == [theirs]


def test_a_folder_that_was_not_there_is_gone_where_nothing_was_put_into_it(tmp_path):
    place = tmp_path / "a" / "b"
    check_writable(place)
    with pytest.raises(UserError, match="cannot write"), working_folder(place):
        raise OSError(28, "No space left on device")
    assert not (tmp_path / "a").exists()
    with working_folder(place) as folder:
        (folder / "result").touch()
        (folder / "result").rename(place / "result")
    assert [path.name for path in place.iterdir()] == ["result"]


def test_a_folder_in_which_another_works_is_refused_at_once(tmp_path):
    place = tmp_path / "a" / "b"
    for lock in (sole_lock, folder_lock):
        message = "another process works in .*b; wait for its end, or end it"
        with lock(place), pytest.raises(UserError, match=message), sole_lock(place):
            pass
    place.rmdir()
    place.parent.rmdir()
    with sole_lock(place), sole_lock(place.parent):
        pass
    assert not place.parent.exists()


def test_those_who_make_folders_at_once_get_folders_of_their_own(tmp_path):
    parent = tmp_path / "runs"
    with concurrent.futures.ThreadPoolExecutor(8) as threads, contextlib.ExitStack() as stack:
        made = [threads.submit(stack.enter_context, new_folder(parent, map(str, itertools.count()))) for _ in range(64)]
        folders = {future.result() for future in made}
        assert sorted(int(folder.name) for folder in folders) == list(range(64))
        (parent / "7" / "file").touch()
    assert [folder.name for folder in parent.iterdir()] == ["7"]
    (parent / "file").touch()
    with pytest.raises(UserError, match="cannot write .*file"), new_folder(parent / "file", "x"):
        pass


@pytest.mark.parametrize("name", ["x" * 255, "日本" * 42 + "xyz", "caf\udce9" * 20, "a.weights.h5"])
def test_names_may_be_as_long_as_the_file_system_takes(tmp_path, name):
    path = tmp_path / name
    with whole_file(path) as temporary:
        # What writes to it may go by its suffix.
        assert temporary.name == name and temporary != path
        temporary.write_text("text")
    assert path.read_text() == "text"
    path.unlink()
    with whole_folder(path) as temporary:
        (temporary / "file").touch()
    assert [file.name for file in path.iterdir()] == ["file"]
    remove_folder(path)
    assert not list(tmp_path.iterdir())


def test_what_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")
    for context in (whole_file(path), whole_folder(path)):
        with pytest.raises(KeyError), context as temporary:
            (temporary / "in it" if temporary.is_dir() else temporary).write_text("half")
            raise KeyError
    with pytest.raises(UserError, match=r"cannot write .*file: \w"), whole_folder(path):
        pass
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_what_killed_processes_left_is_found(tmp_path):
    (tmp_path / "sub").mkdir()
    of_the_user = {".backup-20240101", "...Ready For It-acoustic"}
    for name in of_the_user:
        (tmp_path / name).mkdir()
    unfinished = [whole_file(tmp_path / "sub" / "file"), whole_folder(tmp_path / "folder")]
    for context in unfinished:
        temporary = context.__enter__()
        (temporary / "in it" if temporary.is_dir() else temporary).write_text("half")
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"sub", *of_the_user}
    remove_leftovers_of(os.getpid() + 1, tmp_path)
    assert len(list((tmp_path / "sub").iterdir())) == 1
    remove_leftovers_of(os.getpid(), tmp_path)
    assert not list((tmp_path / "sub").iterdir())


@pytest.mark.parametrize("has_links", [True, False])
@pytest.mark.parametrize("taken", ["a folder", "a file for a folder"])
def test_files_take_their_places_together_or_not_at_all(tmp_path, monkeypatch, taken, has_links):
    if not has_links:

        def link(*_, **__):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", link)
    place = tmp_path / "place"
    place.mkdir()
    (place / "one").write_text("old one")
    (place / "link").symlink_to("one")
    (place / "folder").mkdir()
    names = ["one", "two", "link", "new/deep/three"]

    def new():
        aside = tmp_path / "aside"
        aside.mkdir()
        files = {aside / f"{index}": place / name for index, name in enumerate(names)}
        for path in files:
            path.write_text(f"new {path.name}")
        return files, aside

    files, aside = new()
    last = aside / "last"
    last.write_text("new last")
    blocked = {**files, last: place / ("folder" if taken == "a folder" else "one/two/three")}
    with pytest.raises(OSError, match="Is a directory|Not a directory|File exists"):
        replace_all(blocked, aside)
    assert {path.name for path in place.iterdir()} == {"one", "link", "folder"}
    assert (place / "one").read_text() == "old one" and (place / "link").readlink().name == "one"
    for path in aside.iterdir():
        path.unlink()
    aside.rmdir()
    files, aside = new()
    replace_all(files, aside)
    assert [(place / name).read_text() for name in names] == [f"new {index}" for index in range(4)]
    assert not (place / "link").is_symlink()
