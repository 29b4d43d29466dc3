"""The origin of a result: what it says, and what it does not."""

import shutil
import subprocess

import pytest

from sepnet.measures import provenance


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_revision_is_not_that_of_a_repository_in_which_sepnet_is_installed(tmp_path, monkeypatch):
    user = ["-c", "user.name=user", "-c", "user.email=user@localhost"]
    for command in (["init"], [*user, "commit", "--allow-empty", "--message", "theirs"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True)
    revisions = {}
    for place in (tmp_path, tmp_path / "site-packages"):
        file = place / "sepnet" / "measures" / "provenance.py"
        file.parent.mkdir(parents=True)
        monkeypatch.setattr(provenance, "__file__", str(file))
        revisions[place] = provenance.provenance()["git_revision"]
    assert revisions[tmp_path] and revisions[tmp_path / "site-packages"] is None
