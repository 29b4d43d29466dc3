"""Shared by the tests: a cache of their own, real audio where there is some, songs made up, and commands run."""

import dataclasses
import importlib.util
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import uuid

import numpy as np
import pytest
import soundfile

REPOSITORY = pathlib.Path(__file__).parent.parent
SOURCES = ("vocals", "drums", "bass", "other")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The end of a command."""

    status: int
    stdout: str
    stderr: str


def pytest_configure(config):
    """Lets the commands that tests run hear Ctrl-C, as from a user's shell, where the tests run in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def isolated_cache(tmp_path_factory):
    """Keeps the user's cache out of the tests; all of them share one, so that costly things are made once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("SEPNET_CACHE", str(folder))
        yield folder


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    """An empty cache folder for one test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SEPNET_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def real_track():
    """A real MUSDB18 track: 6 s, five stereo streams and a cover picture. It comes with stempeg."""
    # `import stempeg` would need ffmpeg on the machine; its file does not.
    folder = pathlib.Path(importlib.util.find_spec("stempeg").origin).parent
    return next((folder / "data").glob("*.stem.mp4"))


@pytest.fixture(scope="session")
def openmsx():
    """A folder of `.stem.mp4` songs of 30 s, where the machine has it."""
    folder = REPOSITORY.parent / "shared" / "data" / "openmsx-stems"
    if not folder.is_dir():
        pytest.skip("the songs of ../shared/data/openmsx-stems are not on this machine")
    return folder


@pytest.fixture(scope="session")
def run():
    """Runs `python -m MODULE ARGUMENTS...` and returns its `Outcome`; keywords set environment variables."""

    def run_module(module: str, *arguments, timeout: float = 300, **environment: str) -> Outcome:
        command = [sys.executable, "-m", module, *map(str, arguments)]
        # JAX, where a test has imported it, leaves this behind; a user's shell does not have it.
        inherited = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
        finished = subprocess.run(
            command,
            cwd=REPOSITORY,
            env={**inherited, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=timeout,
        )
        return Outcome(finished.returncode, finished.stdout, finished.stderr)

    return run_module


@pytest.fixture(scope="session")
def write_song():
    """Writes a folder of stems of noise, and their exact sum as the mixture, for tests that need a song."""

    def write(
        folder: pathlib.Path,
        sources=SOURCES,
        *,
        num_samples: int = 4000,
        num_channels: int = 2,
        sample_rate: int = 8000,
        subtype: str = "PCM_16",
        suffix: str = ".wav",
        seed: int = 0,
    ) -> pathlib.Path:
        generator = np.random.default_rng(seed)
        folder.mkdir(parents=True)
        stems = {name: generator.integers(-4000, 4000, (num_samples, num_channels)) / 32768 for name in sources}
        for name, samples in {**stems, "mixture": sum(stems.values())}.items():
            soundfile.write(os.fsencode(folder / f"{name}{suffix}"), samples, sample_rate, subtype, format=suffix[1:])
        return folder

    return write


@pytest.fixture(scope="session")
def audio_sources(tmp_path_factory, real_track):
    """The folder that files of all sorts are made from, see `tests.audio_files`."""
    if not (shutil.which("ffmpeg") and shutil.which("ffprobe")):
        pytest.skip("ffmpeg and ffprobe are not installed")
    from tests.audio_files import write_sources

    folder = tmp_path_factory.mktemp("sources")
    write_sources(folder, real_track)
    return folder


@pytest.fixture(scope="session")
def s3_server():
    """A local server of S3's protocol, whose address and keys stand in the environment while the tests run."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("NO_PROXY", "*")
        yield
    server.stop()


@pytest.fixture(params=["local", "memory", pytest.param("s3", marks=pytest.mark.slow)])
def anywhere(request, tmp_path):
    """The address of a new empty folder on this machine, in memory, and in a bucket."""
    if request.param == "local":
        return str(tmp_path / "anywhere")
    name = f"test-{uuid.uuid4().hex}"
    if request.param == "s3":
        request.getfixturevalue("s3_server")
        import s3fs

        s3fs.S3FileSystem().mkdir(name)
    return f"{request.param}://{name}"
