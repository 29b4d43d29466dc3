"""`python -m tests.pipelines.fuzz_reader FOLDER NUMBER`: reads NUMBER damaged copies of every file in a folder.

Each must be read, or refused in one line, within a minute, in a process that may have no more than `MOST_BYTES`: a
crash, a hang and a lack of memory end the process. Prints how many were read and how many refused.
"""

import collections
import faulthandler
import io
import pathlib
import resource
import sys
import tempfile

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from pipelines.audio import reading
from pipelines.errors import UserError

# Libraries take half a gigabyte of addresses before anything is read.
MOST_BYTES = 2 << 30
SECONDS = 60
SPAN = 2000

PLACES = st.floats(0, 1, exclude_max=True)
CHANGES = st.one_of(
    st.tuples(st.just("overwrite"), PLACES, st.binary(min_size=1, max_size=16)),
    # The header is a small part of a file, and most can go wrong there.
    st.tuples(st.just("overwrite"), st.floats(0, 0.02), st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("insert"), PLACES, st.binary(min_size=1, max_size=64)),
    st.tuples(st.just("delete"), PLACES, st.integers(1, SPAN)),
    st.tuples(st.just("repeat"), PLACES, st.integers(1, SPAN)),
    st.tuples(st.just("cut"), PLACES, st.just(0)),
)


def changed(content: bytes, changes) -> bytes:
    """Damages the content of a file."""
    for kind, share, what in changes:
        place = int(share * len(content))
        before, after = content[:place], content[place:]
        if kind == "overwrite":
            content = before + what + after[len(what) :]
        elif kind == "insert":
            content = before + what + after
        elif kind == "delete":
            content = before + after[what:]
        elif kind == "repeat":
            content = before + after[:what] + after
        else:
            content = before
    return content


class _Pipe(io.RawIOBase):
    """Bytes that can be read once."""

    def __init__(self, content: bytes):
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        return self._content.readinto(buffer)


def read_stream(file: io.BufferedReader) -> None:
    with reading.open_audio(file, "the file") as recording:
        for block in recording.blocks():
            check_block(block, recording.info)
    assert "\n" not in recording.remarks()


def check_block(block: np.ndarray, info: reading.AudioInfo) -> None:
    assert block.dtype == np.float32
    assert block.shape == (len(block), info.num_channels)
    assert len(block) <= reading.BLOCK_SAMPLES


def read_all_streams(path: pathlib.Path) -> None:
    infos = reading.probe_streams(path)
    for blocks in reading.read_streams(path, note=lambda text: None):
        for block, info in zip(blocks, infos, strict=True):
            check_block(block, info)


def outcome(content: bytes, way: str, path: pathlib.Path) -> str:
    """Reads a file, which is written to a path where that is needed: "read", or "refused"."""
    try:
        if way in ("file", "pipe"):
            read_stream(io.BufferedReader(_Pipe(content) if way == "pipe" else io.BytesIO(content)))
        else:
            path.write_bytes(content)
            (reading.measure if way == "measure" else read_all_streams)(path)
    except UserError as error:
        assert "\n" not in str(error)
        assert "the file" in str(error)
        return "refused"
    return "read"


def fuzz(path: pathlib.Path, number: int, counts: collections.Counter) -> None:
    """Reads `number` damaged copies of a file, the same in every run."""
    content = path.read_bytes()

    @seed(0)
    @settings(
        max_examples=number,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(CHANGES, min_size=1, max_size=5), st.sampled_from(["file", "pipe", "measure", "streams"]))
    def read_one(changes, way):
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        counts[outcome(changed(content, changes), way, pathlib.Path(folder) / "the file")] += 1

    with tempfile.TemporaryDirectory() as folder:
        read_one()
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    totals: collections.Counter = collections.Counter()
    for name in sorted(pathlib.Path(sys.argv[1]).iterdir()):
        print(name.name, end=" ", flush=True)
        fuzz(name, int(sys.argv[2]), totals)
    print(f"{totals['read']} read {totals['refused']} refused")
