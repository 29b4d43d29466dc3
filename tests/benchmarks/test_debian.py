"""Packages of Debian: found, brought by apt, checked, and read without writing where their names lead."""

import shutil
import subprocess

import pytest

from benchmarks.debian import Package, find_packages, read_files
from pipelines.errors import UserError
from tests.conftest import REPOSITORY

COMMANDS = ("real_songs", "speech_data")


def path_of(folder):
    [path] = folder.glob("*.deb")
    return path


def test_a_package_of_hand_reads_as_dpkg_reads_it(write_package, tmp_path):
    write_package("sounds", {"./usr/share/a.ogg": b"odd", "./usr/share/b.ogg": b"even"})
    path = path_of(tmp_path / "packages")
    assert dict(read_files(path, lambda name: True)) == {"usr/share/a.ogg": b"odd", "usr/share/b.ogg": b"even"}
    assert dict(read_files(path, "usr/share/b.ogg".__eq__)) == {"usr/share/b.ogg": b"even"}


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg-deb is not installed")
@pytest.mark.parametrize("compression", ["xz", "gzip"])
def test_packages_of_dpkg_are_read(tmp_path, compression):
    (tmp_path / "tree" / "DEBIAN").mkdir(parents=True)
    (tmp_path / "tree" / "DEBIAN" / "control").write_text(
        "Package: sounds\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\nDescription: sounds\n"
    )
    (tmp_path / "tree" / "usr").mkdir()
    (tmp_path / "tree" / "usr" / "ünö dos.ogg").write_bytes(b"sound" * 100)
    path = tmp_path / "sounds.deb"
    command = ["dpkg-deb", f"-Z{compression}", "--root-owner-group", "--build", tmp_path / "tree", path]
    subprocess.run(command, check=True, capture_output=True)
    assert dict(read_files(path, lambda name: True)) == {"usr/ünö dos.ogg": b"sound" * 100}


@pytest.mark.parametrize("name", ["../outside", "usr/../../outside", "/outside"])
def test_names_that_lead_elsewhere_are_refused(write_package, tmp_path, name):
    write_package("sounds", {name: b"evil"})
    with pytest.raises(UserError, match="leads out of it"):
        list(read_files(path_of(tmp_path / "packages"), lambda name: True))


def test_links_are_refused_where_they_are_wanted_and_else_passed_over(write_package, tmp_path):
    write_package("sounds", {"usr/a.ogg": "/etc/passwd", "usr/b.ogg": b"sound"})
    path = path_of(tmp_path / "packages")
    assert dict(read_files(path, "usr/b.ogg".__eq__)) == {"usr/b.ogg": b"sound"}
    with pytest.raises(UserError, match="'usr/a.ogg', which is no plain file"):
        list(read_files(path, lambda name: True))


def test_what_is_no_package_is_refused(tmp_path):
    (tmp_path / "page.deb").write_text("<html>" * 100)
    with pytest.raises(UserError, match="expected a package of Debian"):
        list(read_files(tmp_path / "page.deb", lambda name: True))


def test_another_file_than_the_one_that_was_published_is_refused(write_package, tmp_path):
    package = write_package("sounds", {"usr/a.ogg": b"sound"})
    folder = tmp_path / "packages"
    assert find_packages([package], folder) == {package: path_of(folder)}
    damaged = bytearray(path_of(folder).read_bytes())
    damaged[-1] ^= 1
    path_of(folder).write_bytes(damaged)
    with pytest.raises(UserError, match="SHA-256 differs"):
        find_packages([package], folder)


def test_the_names_of_apt_and_of_mirrors_are_found(write_package, tmp_path):
    package = write_package("sounds", {"usr/a.ogg": b"sound"})
    path = path_of(tmp_path / "packages")
    path = path.rename(path.with_name("sounds_2-3_all.deb"))
    assert find_packages([package], tmp_path / "packages") == {package: path}


def programs(folder, offered: str, source) -> None:
    """An apt that offers one version, and has its packages in a folder."""
    scripts = {
        "apt-cache": f'echo "Package: $2"; echo "Version: {offered}"',
        "apt-get": f'echo "$@" >>{folder}/calls; /bin/cp {source}/*.deb .',
    }
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)


def test_apt_brings_the_version_that_it_offers_once(write_package, tmp_path, monkeypatch):
    package = write_package("sounds", {"usr/a.ogg": b"sound"})
    package = Package("sounds", "MIT", {"9-9": {"bytes": 1, "sha256": "0"}, **package.versions}, ())
    programs(tmp_path / "bin", "1:2-3", tmp_path / "packages")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("SEPNET_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        [path] = find_packages([package], None).values()
        assert path == tmp_path / "cache" / "packages" / "sounds_1%3a2-3_all.deb"
    assert (tmp_path / "bin" / "calls").read_text() == "download sounds=1:2-3\n"
    assert list(path.parent.iterdir()) == [path]


def test_an_apt_with_other_versions_is_not_asked(write_package, tmp_path, monkeypatch):
    package = write_package("sounds", {"usr/a.ogg": b"sound"})
    programs(tmp_path / "bin", "3-1", tmp_path / "packages")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("SEPNET_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"none of these versions.*download sounds 1:2-3 from packages\.debian\.org"):
        find_packages([package], None)
    assert not (tmp_path / "bin" / "calls").exists() and not (tmp_path / "cache").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_without_apt_the_packages_are_named(run, tmp_path, command):
    outcome = run(f"benchmarks.{command}", tmp_path / "out", PATH=str(tmp_path), SEPNET_CACHE=str(tmp_path / "cache"))
    assert outcome.status == 2 and outcome.stderr.count("\n") == 1
    table = (REPOSITORY / "benchmarks" / f"{command}.json").read_text()
    packages = [line.split('"')[1] for line in table.splitlines() if line.startswith('  "')]
    assert len(packages) > 1 and all(f"{package} " in outcome.stderr for package in packages)
    assert "packages.debian.org" in outcome.stderr and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_lacks_packages_is_refused(run, tmp_path, command):
    outcome = run(f"benchmarks.{command}", tmp_path / "out", "--packages", tmp_path)
    assert outcome.status == 2 and f"{tmp_path} lacks packages: download" in outcome.stderr
    assert list(tmp_path.iterdir()) == []
