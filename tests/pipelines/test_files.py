"""Folders to work in: apart from each other, and gone afterwards."""

import concurrent.futures

import pytest

from pipelines.errors import UserError
from pipelines.files import check_writable, working_folder


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
