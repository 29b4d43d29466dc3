"""The reader against ffmpeg's own decoding: files of all sorts, by path, through a pipe and as a named pipe."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import soundfile

from pipelines.audio import reading
from pipelines.copies.make import prepare_songs
from pipelines.errors import UserError
from tests.audio_files import CASES, decode, expected, make
from tests.conftest import REPOSITORY


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch):
    monkeypatch.setattr(reading, "BLOCK_SAMPLES", 10_000)


@pytest.fixture
def made(audio_sources, tmp_path):
    """Makes the file of a case, and returns its path."""
    return lambda case: make(case, audio_sources, tmp_path)


def read(source, name: str = "") -> tuple[reading.AudioInfo, np.ndarray, str]:
    with reading.open_audio(source, name) as recording:
        return recording.info, np.concatenate(list(recording.blocks())), recording.remarks()


def test_there_are_files_of_all_sorts():
    assert len({case.name for case in CASES}) == len(CASES) >= 80


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_file_gives_what_ffmpeg_gives(made, tmp_path, case):
    path = made(case)
    wanted, stream = expected(path, case)
    info, samples, remarks = read(path)
    assert samples.shape == wanted.shape
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, wanted, rtol=0, atol=case.tolerance)
    assert (info.sample_rate, info.num_channels) == (int(stream["sample_rate"]), stream["channels"])
    assert re.fullmatch(f".*{case.remark}.*" if case.remark else "", remarks)
    if info.encoding.startswith("PCM_"):
        depth = int(stream.get("bits_per_raw_sample", stream["bits_per_sample"]))
        # PyAV does not tell 32 from 24 bits of WavPack.
        assert info.encoding == f"PCM_{min(depth, 24) if info.container == 'wv' else depth}"
    # One truth: a pipe, and a named pipe, give the same.
    with subprocess.Popen(["cat", path], stdout=subprocess.PIPE) as process:
        same_or_unknown(info, samples, read(process.stdout, "the pipe"))
    os.mkfifo(tmp_path / "named pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "named pipe").write_bytes(path.read_bytes()))
    writer.start()
    same_or_unknown(info, samples, read(tmp_path / "named pipe"))
    writer.join()


def same_or_unknown(info: reading.AudioInfo, samples: np.ndarray, other) -> None:
    other_info, other_samples, _ = other
    np.testing.assert_array_equal(other_samples, samples)
    for fact in ("sample_rate", "num_channels", "encoding", "container"):
        assert getattr(other_info, fact) == getattr(info, fact)
    # The length may be unknown until the end.
    assert other_info.num_samples in (info.num_samples, 0)


def damaged(path: pathlib.Path, place: float, size: int) -> pathlib.Path:
    """Overwrites some bytes of a file, at a share of its length."""
    content = bytearray(path.read_bytes())
    first = int(place * len(content))
    content[first : first + size] = b"\xaa" * size
    copy = path.with_name(f"damaged {path.name}")
    copy.write_bytes(content)
    return copy


# Where, as a share of the file, so that something stands before it; and how exactly the rest is what it was.
DAMAGED = {
    "s16.flac": (0.4, 0.0),
    "flac.mkv": (0.4, 0.0),
    "long.ogg": (0.4, 0.0),
    "long.opus": (0.4, 1e-3),
    "sound.m4a": (0.4, 1e-3),
    "stereo.aac": (0.4, 1e-3),
    "cbr.mp3": (0.4, 1e-3),
}


@pytest.mark.parametrize("case", [case for case in CASES if case.name in DAMAGED], ids=lambda case: case.name)
def test_damage_is_silent_and_said_and_time_is_kept(made, case):
    path = made(case)
    place, tolerance = DAMAGED[case.name]
    _, whole, _ = read(path)
    _, samples, remarks = read(damaged(path, place, 300))
    lost = float(re.fullmatch(r"(\d+\.\d+) s could not be decoded and is silent, first at \d+\.\d+ s", remarks)[1])
    assert 0 < lost < 1.2
    assert abs(len(samples) - len(whole)) < 1200
    # What follows stands where it stood; these two have no time stamps, and may be off by a frame.
    if case.name not in ("cbr.mp3", "stereo.aac"):
        end = slice(int(0.9 * len(whole)), int(0.98 * len(whole)))
        np.testing.assert_allclose(samples[end], whole[end], rtol=0, atol=tolerance)


CUT = {
    "pcm_s24le.wav": "it breaks off after",
    "s16.flac": "it breaks off after",
    "cbr.mp3": "it breaks off after",
    "index in front.m4a": "it breaks off after",
    "pcm_s16be.aiff": "it breaks off after",
    "s24.wv": "it breaks off after",
    # These say nothing of their length.
    "long.ogg": "",
    "long.opus": "",
    "stereo.aac": "",
}


@pytest.mark.parametrize("case", [case for case in CASES if case.name in CUT], ids=lambda case: case.name)
def test_most_of_a_file_is_read_and_less_is_refused(made, case):
    path = made(case)
    _, whole, _ = read(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 4 // 5])
    info, samples, remarks = read(path)
    assert 0.6 < len(samples) / len(whole) < 0.9
    np.testing.assert_allclose(samples[:-5000], whole[: len(samples) - 5000], rtol=0, atol=1e-6)
    assert CUT[case.name] in remarks
    path.write_bytes(content[: len(content) // 5])
    # The header of a WAV is too often wrong.
    if CUT[case.name] and info.container != "wav":
        with pytest.raises(
            UserError, match="cannot decode most of .* breaks off after .* put a good copy|cannot decode"
        ):
            read(path)
    else:
        assert len(read(path)[1]) < 0.3 * len(whole)


@pytest.mark.parametrize(
    "name", ["2001: x.mp3", "http:x.flac", "[a] %d #1.wav", os.fsdecode(b"caf\xe9.wav"), "é" * 125 + ".wav"]
)
def test_any_name_is_read(audio_sources, tmp_path, name):
    path = tmp_path / name
    subprocess.run(
        ["ffmpeg", "-v", "error", "-i", audio_sources / "song.wav", f"{tmp_path}/x{path.suffix}"], check=True
    )
    (tmp_path / f"x{path.suffix}").rename(path)
    assert reading.probe(path).sample_rate == 44_100
    assert reading.measure(path).num_samples == sum(map(len, reading.read_blocks(path))) == 88_200


def test_no_playlist_opens_another_file(audio_sources, tmp_path):
    song = audio_sources / "song.wav"
    for text in (f"#EXTM3U\n#EXTINF:1,\n{song}\n#EXT-X-ENDLIST\n", f"ffconcat version 1.0\nfile '{song}'\n"):
        (tmp_path / "list.wav").write_text(text)
        with pytest.raises(UserError, match="cannot decode"):
            read(tmp_path / "list.wav")


def test_what_is_no_file_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    # Who reads headers first, and samples later, cannot take a pipe.
    for function in (
        reading.probe,
        reading.measure,
        lambda path: list(reading.read_blocks(path)),
        reading.probe_streams,
    ):
        with pytest.raises(UserError, match="pipe is a pipe, which can be read only once"):
            function(tmp_path / "pipe")
    for path, kind in ((tmp_path, "a folder"), (pathlib.Path("/dev/zero"), "a device")):
        with pytest.raises(UserError, match=f"is {kind}; expected an audio file"):
            reading.probe(path)


def test_prepared_songs_are_what_ffmpeg_decodes(made, tmp_path):
    """Stems with other rates, depths and sizes in their headers, beside a `.stem.mp4`, are in `test_prepare`."""
    names = (
        "pcm_s24le.wav",
        "no size.wav",
        "largest size.wav",
        "rf64.wav",
        "s24.flac",
        "from a pipe.flac",
        "id3 in front.flac",
    )
    data = tmp_path / "data"
    wanted = {}
    for case in CASES:
        if case.name in names:
            path = made(case)
            folder = data / path.stem
            folder.mkdir(parents=True)
            for stem in ("vocals", "drums"):
                shutil.copyfile(path, folder / f"{stem}{path.suffix}")
            wanted[path.stem] = decode(path)[0]
    prepare_songs(data, tmp_path / "copy", sample_rate=None, workers=1, skip_bad=False)
    assert len(wanted) >= len(names) - 1
    for name, samples in wanted.items():
        copied, rate = soundfile.read(tmp_path / "copy" / "train" / name / "drums.wav", dtype="int16", always_2d=True)
        assert rate == 44_100
        np.testing.assert_array_equal(copied, np.clip(np.rint(samples * 32_768), -32_768, 32_767))


# One for each way of reading: demuxers and decoders of all kinds, libsndfile, chained Ogg.
FUZZED = {
    *("pcm_s24le.wav", "adpcm_ms.wav", "rf64.wav", "pcm_s24be.aiff", "alac.caf", "s24.w64", "sox.snd", "pcm.nut"),
    *("s16.flac", "s16.ogg", "flac.mkv", "s16.m4a", "float.wv", "s16.tta", "vbr.mp3", "picture.mp3", "stereo.aac"),
    *(
        "in fragments.mp4",
        "aac.ts",
        "mp2.mpg",
        "mp3.avi",
        "mp3.flv",
        "stereo.ogg",
        "opus.webm",
        "stereo.opus",
        "chained.ogg",
    ),
    *("surround.ac3", "two.wma", "ac3.rm", "sound.dsf", "sound.3gp", "mono and stereo.aac"),
}


@pytest.mark.parametrize("number", [10, pytest.param(2000, marks=pytest.mark.slow)])
def test_damaged_files_are_read_or_refused(made, tmp_path, number):
    folder = tmp_path / "files"
    folder.mkdir()
    for case in CASES:
        if case.name in FUZZED and all(map(shutil.which, case.programs)):
            made(case).rename(folder / case.name)
    command = [sys.executable, "-m", "tests.pipelines.fuzz_reader", folder, str(number)]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr[-3000:]
    num_read, num_refused = map(int, re.search(r"(\d+) read (\d+) refused$", finished.stdout.strip()).groups())
    # Damage in the middle leaves most of a file, and in the header none.
    assert min(num_read, num_refused) > 0.2 * (num_read + num_refused)
    assert num_read + num_refused > number * len(list(folder.iterdir())) // 2
