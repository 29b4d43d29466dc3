"""`python -m sepnet.separate`: songs of any format, folders, streams; files whole or not at all."""

import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import av
import numpy as np
import pytest
import soundfile

from pipelines.errors import UserError
from sepnet.separate import main as separate
from tests.sepnet.helpers import SOURCES, noise, tone

LENGTH = 30_011
# JAX, where a test has imported it, sets how much TensorFlow says; a user's shell does not have it.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}


@pytest.fixture(scope="module")
def quarters(gain_model):
    """A model at 44.1 kHz whose stems are half and a quarter of the mixture, and nothing."""
    return gain_model({"vocals": 0.5, "drums": 0.25, "bass": 0.0}, sample_rate=44_100)


def write_with_pyav(path, samples, sample_rate, codec, sample_format="fltp"):
    """Writes what libsndfile does not read, or does not write."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=sample_rate, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format=sample_format, layout="stereo")
        frame.sample_rate = sample_rate
        for packet in itertools.chain(stream.encode(frame), stream.encode(None)):
            container.mux(packet)


def read_with_pyav(path, stream=0):
    """All samples of a stream, `[num_samples, num_channels]`."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=stream)]
        num_channels = container.streams.audio[stream].channels
    joined = np.concatenate(frames, axis=1)
    return joined.T if len(joined) == num_channels else joined.reshape(-1, num_channels)


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_16_bit_audio_comes_back_bit_for_bit(run, identity, tmp_path):
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, (LENGTH, 2)).astype(np.int16)
    samples[:2] = [[-(2**15), 2**15 - 1], [1, -1]]
    song, output = tmp_path / "song.wav", tmp_path / "out" / "stems"
    soundfile.write(song, samples, 44_100, "PCM_16")
    outcome = run("sepnet.separate", song, "--model", identity, "-o", output)
    assert outcome.status == 0 and outcome.stderr == ""
    assert outcome.stdout.split() == [str(output / "vocals.wav"), str(output / "rest.wav")]
    assert files_below(output) == ["rest.wav", "vocals.wav"]
    for source in ("vocals", "rest"):
        assert soundfile.info(output / f"{source}.wav").subtype == "PCM_16"
        stem, sample_rate = soundfile.read(output / f"{source}.wav", dtype="int16")
        assert sample_rate == 44_100
        np.testing.assert_array_equal(stem, samples)


@pytest.mark.parametrize(
    ("name", "subtype", "stem_subtype"),
    [
        ("song.wav", "PCM_16", "PCM_16"),
        ("song.wav", "PCM_24", "PCM_24"),
        ("song.wav", "FLOAT", "FLOAT"),
        ("song.flac", "PCM_24", "PCM_24"),
        ("song.mp3", "MPEG_LAYER_III", "PCM_16"),
        ("song.ogg", "VORBIS", "PCM_16"),
        ("song.opus", "", "PCM_16"),
        ("song.m4a", "", "PCM_16"),
        ("video.mkv", "", "PCM_16"),
    ],
)
def test_stems_have_length_rate_and_channels_of_any_format(exported, tmp_path, name, subtype, stem_subtype):
    song, sample_rate = tmp_path / name, 24_000
    if subtype:
        soundfile.write(song, tone(2, sample_rate, LENGTH), sample_rate, subtype)
    else:
        samples = tone(2, sample_rate, LENGTH)
        if name == "song.opus":
            write_with_pyav(song, samples.reshape(-1, 1), sample_rate, "libopus", "flt")
        else:
            write_with_pyav(song, samples, sample_rate, "aac")
    decoded = soundfile.read(song)[0] if subtype else read_with_pyav(song)
    # FFmpeg decodes Opus at 48 kHz, whatever rate it was made from.
    sample_rate = 48_000 if ".opus" in name else sample_rate
    assert len(decoded) == LENGTH or name.endswith(("m4a", "mkv", "opus"))
    separate([str(song), "--model", str(exported["unet_1d"]), "-o", str(tmp_path / "stems")])
    for source in SOURCES:
        info = soundfile.info(tmp_path / "stems" / f"{source}.wav")
        assert (info.frames, info.samplerate, info.channels) == (len(decoded), sample_rate, 2)
        assert (info.format, info.subtype) == ("WAV", stem_subtype)


@pytest.mark.parametrize("song_subtype", ["PCM_16", "FLOAT"])
@pytest.mark.parametrize(
    ("name", "sample_rate", "subtypes"),
    [
        ("wav", 44_100, {"PCM_16": "PCM_16", "FLOAT": "FLOAT"}),
        ("flac", 44_100, {"PCM_16": "PCM_16", "FLOAT": "PCM_24"}),
        ("mp3", 44_100, {}),
        ("opus", 48_000, {}),
    ],
)
def test_every_format_holds_the_stems_in_full_length(quarters, tmp_path, name, sample_rate, subtypes, song_subtype):
    song, samples = tmp_path / "song.wav", tone(2, sample_rate, 60_011)
    soundfile.write(song, samples, sample_rate, song_subtype)
    separate([str(song), "--model", str(quarters), "-o", str(tmp_path / "stems"), "--format", name])
    assert files_below(tmp_path / "stems") == [f"bass.{name}", f"drums.{name}", f"vocals.{name}"]
    for source, gain in {"vocals": 0.5, "drums": 0.25}.items():
        stem, stem_rate = soundfile.read(tmp_path / "stems" / f"{source}.{name}")
        assert stem_rate == sample_rate and stem.shape == samples.shape
        if subtypes:
            assert soundfile.info(tmp_path / "stems" / f"{source}.{name}").subtype == subtypes[song_subtype]
            # Half a step of the song, and one of the stem.
            tolerance = 2 / 32_768 if song_subtype == "PCM_16" else 2**-23
            np.testing.assert_allclose(stem, gain * samples, rtol=0, atol=tolerance)
        else:
            # Opus fades in, and resampling rings at the ends.
            inner = slice(2000, -2000)
            loss = np.square(stem - gain * samples)[inner].mean() / np.square(gain * samples)[inner].mean()
            assert 10 * np.log10(loss) < -20


def test_opus_at_44100_hz_is_resampled_and_says_so(quarters, tmp_path, capsys):
    soundfile.write(tmp_path / "song.wav", tone(2, 44_100, 44_100), 44_100)
    separate([str(tmp_path / "song.wav"), "--model", str(quarters), "-o", str(tmp_path / "o"), "--format", "opus"])
    assert "Opus knows no 44100 Hz" in capsys.readouterr().err
    info = soundfile.info(tmp_path / "o" / "vocals.opus")
    assert (info.samplerate, info.frames) == (48_000, 48_000)


def test_a_stem_mp4_is_what_musdb18_has(gain_model, tmp_path):
    gains = {"vocals": 0.5, "drums": 0.25, "bass": 0.125, "other": 0.0625}
    model = gain_model(gains, sample_rate=44_100)
    song, samples = tmp_path / "song.wav", tone(2, 44_100, 100_011)
    soundfile.write(song, samples, 44_100)
    separate([str(song), "--model", str(model), "-o", str(tmp_path / "out"), "--format", "stem.mp4"])
    assert files_below(tmp_path / "out") == ["song.stem.mp4"]
    from pipelines.songs.layouts import find_songs

    [read] = find_songs(tmp_path / "out")
    assert read.name == "song"
    for index, gain in enumerate((1, 0.25, 0.125, 0.0625, 0.5)):
        stream = read_with_pyav(tmp_path / "out" / "song.stem.mp4", index)
        # Decoders give the padding of the last frame, too; nothing is shifted.
        assert 0 <= len(stream) - len(samples) < 2048
        error = np.square(stream[: len(samples)] - gain * samples).mean() / np.square(gain * samples).mean()
        assert 10 * np.log10(error) < -25


def test_the_audio_of_a_lossy_song_is_what_its_decoder_gives(identity, tmp_path):
    song = tmp_path / "song.m4a"
    write_with_pyav(song, tone(2, 44_100, LENGTH), 44_100, "aac")
    separate([str(song), "--model", str(identity), "-o", str(tmp_path)])
    stem, _ = soundfile.read(tmp_path / "vocals.wav")
    np.testing.assert_allclose(stem, read_with_pyav(song), rtol=0, atol=1 / 32768)


def test_stems_that_would_clip_are_made_softer_together(gain_model, tmp_path, capsys):
    model = gain_model({"loud": 4.0, "soft": 0.5}, sample_rate=44_100)
    song = tone(2, 44_100, LENGTH)
    for encoding, gain in (("PCM_16", 0.5), ("FLOAT", 1.0)):
        path, output = tmp_path / f"{encoding}.wav", tmp_path / encoding
        soundfile.write(path, song, 44_100, encoding)
        separate([str(path), "--model", str(model), "-o", str(output)])
        assert ("6.0 dB softer" in capsys.readouterr().err) == (gain < 1)
        for source, factor in {"loud": 4.0, "soft": 0.5}.items():
            stem, _ = soundfile.read(output / f"{source}.wav")
            np.testing.assert_allclose(stem, gain * factor * song, rtol=0, atol=3e-4)


def test_chosen_stems_karaoke_and_what_is_left(quarters, tmp_path):
    song, samples = tmp_path / "song.wav", tone(2, 44_100, LENGTH)
    soundfile.write(song, samples, 44_100, "FLOAT")

    def written(*flags):
        output = tmp_path / "-".join(flags)
        separate([str(song), "--model", str(quarters), "-o", str(output), *flags])
        return {path.stem: soundfile.read(path)[0] for path in output.iterdir()}

    gains = {
        ("--stems", "drums"): {"drums": 0.25},
        ("--karaoke",): {"karaoke": 0.25},
        ("--karaoke", "--stems", "vocals,bass"): {"vocals": 0.5, "bass": 0.0, "karaoke": 0.25},
        ("--residual",): {"vocals": 0.5, "drums": 0.25, "bass": 0.0, "residual": 0.25},
        ("--residual", "--stems", "vocals"): {"vocals": 0.5, "residual": 0.5},
    }
    for flags, expected in gains.items():
        stems = written(*flags)
        assert set(stems) == set(expected)
        for name, gain in expected.items():
            np.testing.assert_allclose(stems[name], gain * samples, rtol=0, atol=1e-6)


def test_a_folder_is_separated_with_all_below_it_and_says_what_failed(run, identity, tmp_path):
    songs, output = tmp_path / "songs", tmp_path / "out"
    for name in ("one.wav", "album/two.flac", "album/two.wav", "album/disc 1/three.ogg"):
        (songs / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(songs / name, tone(1, 44_100, 5000), 44_100)
    (songs / "text.wav").write_text("no audio at all\n" * 100)
    (songs / "cover.jpg").write_bytes(b"no audio, and no song")
    soundfile.write(songs / "whole.mp3", noise(44_100, 2), 44_100)
    (songs / "cut.mp3").write_bytes((songs / "whole.mp3").read_bytes()[:9000])
    (songs / "whole.mp3").unlink()
    not_a_number = noise(5000, 1)
    not_a_number[4410] = np.nan
    soundfile.write(songs / "nan.wav", not_a_number, 44_100, "FLOAT")
    (songs / "empty.wav").write_bytes(b"")
    outcome = run("sepnet.separate", songs, "--model", identity, "-o", output, "--stems", "vocals")
    assert outcome.status == 2
    expected = ["album/disc 1/three", "album/two.flac", "album/two.wav", "one"]
    assert files_below(output) == [f"{name}/vocals.wav" for name in expected]
    summary = outcome.stderr.splitlines()
    assert summary[0] == "4 of 8 songs were separated; these were not:"
    for name, reason in {
        "cut.mp3": "breaks off after",
        "empty.wav": "is empty",
        "nan.wav": "holds NaN or infinity, first at 0.100 s",
        "text.wav": "no audio file",
    }.items():
        assert sum(name in line and reason in line for line in summary) == 1
    assert len(summary) == 5


def test_templates_name_the_files_and_what_is_there_can_be_left_out(identity, tmp_path, capsys):
    songs = [tmp_path / "one.wav", tmp_path / "two.wav"]
    for song in songs:
        soundfile.write(song, tone(1, 44_100, 5000), 44_100)
    template = ["--template", "{model}/{stem} of {song}", "--stems", "rest"]
    arguments = [*map(str, songs), "--model", str(identity), "-o", str(tmp_path / "out"), *template]
    separate(arguments)
    assert files_below(tmp_path / "out") == ["gains/rest of one.wav", "gains/rest of two.wav"]
    capsys.readouterr()
    (tmp_path / "out" / "gains" / "rest of one.wav").unlink()
    separate([*arguments, "--skip-existing"])
    assert capsys.readouterr().out.split("\n") == [str(tmp_path / "out" / "gains" / "rest of one.wav"), ""]


@pytest.mark.parametrize(
    "kind", ["wav", "m4a", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("flac", "mp3"))]
)
def test_a_stream_gives_what_a_file_gives(identity, tmp_path, kind):
    song = tmp_path / f"song.{kind}"
    if kind == "m4a":
        write_with_pyav(song, tone(2, 44_100, LENGTH), 44_100, "aac")
    else:
        soundfile.write(song, tone(2, 44_100, LENGTH), 44_100)
    command = [sys.executable, "-m", "sepnet.separate", "-", "--model", str(identity), "--stems", "vocals"]
    with song.open("rb") as file:
        finished = subprocess.run(command, stdin=file, capture_output=True, check=False)
    assert finished.returncode == 0, finished.stderr
    (tmp_path / "stream.wav").write_bytes(finished.stdout)
    streamed = read_with_pyav(tmp_path / "stream.wav")
    expected = soundfile.read(song)[0] if kind != "m4a" else read_with_pyav(song)
    np.testing.assert_allclose(streamed, expected, rtol=0, atol=1e-4 if kind == "mp3" else 1e-6)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--stems", "vocals,kazoo"], "no stem 'kazoo'; choose from vocals, rest"),
        (["--template", "{song}"], r"must hold \{stem\}"),
        (["--template", "{stem}/{artist}"], "nothing else"),
        (["--template", "{stem"], "--template {stem"),
        (["--template", "../{stem}"], "leads out of the output folder"),
        (["--template", "/{stem}"], "leads out of the output folder"),
        (["-o", "-"], "takes one song and one stem as WAV"),
        (["-o", "-", "--stems", "rest", "--format", "flac"], "takes one song and one stem as WAV"),
        (["--format", "mp3"], "mp3 cannot hold 6 channels at 44100 Hz; take --format wav or flac"),
        (["{song}"], "would be written to the same files"),
        (["{empty}"], "holds no audio; expected files like song.mp3"),
        (["--format", "au"], "invalid choice: 'au'"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(identity, tmp_path, flags, message):
    (tmp_path / "empty").mkdir()
    soundfile.write(tmp_path / "song.wav", tone(6, 44_100, 1000), 44_100)
    before = files_below(tmp_path)
    flags = [
        {"{song}": str(tmp_path / "song.wav"), "{empty}": str(tmp_path / "empty")}.get(flag, flag) for flag in flags
    ]
    output = [] if "-o" in flags else ["-o", str(tmp_path / "out")]
    with pytest.raises(UserError, match=message) as caught:
        separate([str(tmp_path / "song.wav"), "--model", str(identity), *output, *flags])
    assert "\n" not in str(caught.value)
    assert files_below(tmp_path) == before and not (tmp_path / "out").exists()


def test_karaoke_needs_vocals(gain_model, tmp_path):
    soundfile.write(tmp_path / "song.wav", tone(1, 8000, 1000), 8000)
    model = gain_model({"speech": 1.0, "noise": 1.0}, sample_rate=8000)
    with pytest.raises(UserError, match="leaves the vocals out, and the model knows speech, noise"):
        separate([str(tmp_path / "song.wav"), "--model", str(model), "-o", str(tmp_path / "out"), "--karaoke"])


@pytest.mark.parametrize(
    "num_bytes",
    # Where the limit is met: by the floats that wait for their gain, by the files.
    [300_000, 1_000_000],
)
def test_a_full_disk_is_named_and_leaves_nothing(identity, tmp_path, num_bytes):
    """A limit on the size of files stands for a full disk."""
    soundfile.write(tmp_path / "song.wav", noise(110_000, 2), 44_100, "DOUBLE")
    outcome = subprocess.run(
        [sys.executable, "-m", "sepnet.separate", str(tmp_path / "song.wav"), "--model", str(identity)]
        + ["-o", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes)),
    )
    assert outcome.returncode == 2, outcome.stdout + outcome.stderr
    [line] = outcome.stderr.splitlines()
    assert line.startswith("error: ") and "cannot write" in line and "make room, or choose another folder" in line
    assert files_below(tmp_path) == ["song.wav"] and not (tmp_path / "out").exists()


def long_separation(tmp_path, model):
    """Starts to separate two minutes of noise, and waits until stems are being written."""
    soundfile.write(tmp_path / "song.wav", noise(120 * 44_100, 2), 44_100)
    process = subprocess.Popen(
        [sys.executable, "-m", "sepnet.separate", str(tmp_path / "song.wav"), "--model", str(model)]
        + ["-o", str(tmp_path / "out")],
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    while not holds_samples(tmp_path / "out"):
        assert process.poll() is None
        time.sleep(0.01)
    return process


def holds_samples(folder):
    """True if stems are being written in a folder, where other files and folders come and go meanwhile."""
    try:
        return any(path.stat().st_size for path in folder.glob(".*/*.raw"))
    except FileNotFoundError:
        return False


def test_ctrl_c_leaves_no_half_file(exported, tmp_path):
    process = long_separation(tmp_path, exported["unet_2d"])
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    with process.stderr as errors:
        assert errors.read().splitlines()[-1] == "interrupted"
    assert not (tmp_path / "out").exists()


def test_what_a_killed_process_left_is_removed_by_the_next(identity, exported, tmp_path):
    process = long_separation(tmp_path, exported["unet_2d"])
    process.kill()
    process.wait(30)
    process.stderr.close()
    assert list((tmp_path / "out").iterdir())
    other = tmp_path / "other.wav"
    soundfile.write(other, tone(1, 44_100, 100), 44_100)
    separate([str(other), "--model", str(identity), "-o", str(tmp_path / "out")])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["rest.wav", "vocals.wav"]


def test_memory_does_not_grow_with_the_song(identity, tmp_path):
    """The benchmark does it with real models and an hour."""
    program = (
        "import sys, sepnet.separate, sepnet.training.measure; sepnet.separate.main(sys.argv[1:]);"
        "print(sepnet.training.measure.peak_bytes())"
    )

    def peak_bytes(seconds):
        song = tmp_path / f"{seconds}.wav"
        with soundfile.SoundFile(song, "w", 44_100, 2) as file:
            for _ in range(seconds // 30):
                file.write(noise(30 * 44_100, 2))
        flags = ["--model", str(identity), "-o", str(tmp_path / f"{seconds}")]
        command = [sys.executable, "-c", program, str(song), *flags]
        finished = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(finished.stdout.split()[-1])

    # Two minutes more are 85 MB of stems as floats, and 21 MB of song.
    assert abs(peak_bytes(150) - peak_bytes(30)) < 40e6


def test_stems_that_are_there_are_replaced(identity, tmp_path):
    output = tmp_path / "stems"
    for num_samples in (300, 200):
        soundfile.write(tmp_path / "song.wav", tone(1, 44_100, num_samples), 44_100)
        separate([str(tmp_path / "song.wav"), "--model", str(identity), "-o", str(output)])
        assert {path.name: soundfile.info(path).frames for path in output.iterdir()} == {
            "vocals.wav": num_samples,
            "rest.wav": num_samples,
        }


def test_a_named_pipe_is_read_as_a_stream(exported, tmp_path):
    song = tmp_path / "song.wav"
    soundfile.write(song, tone(2, 24_000, LENGTH), 24_000, "PCM_24")
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(song.read_bytes()))
    writer.start()
    model = ["--model", str(exported["unet_1d"])]
    separate([str(tmp_path / "pipe"), *model, "-o", str(tmp_path / "of the pipe")])
    writer.join()
    separate([str(song), *model, "-o", str(tmp_path / "of the file")])
    for source in SOURCES:
        stems = [tmp_path / folder / f"{source}.wav" for folder in ("of the pipe", "of the file")]
        assert soundfile.info(stems[0]).subtype == "PCM_24"
        np.testing.assert_array_equal(*(soundfile.read(stem)[0] for stem in stems))
