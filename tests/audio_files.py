"""Audio files of all sorts: a shell command for each, with ffmpeg, flac, lame and sox, from real music.

Commands run in a folder that holds `song.wav` (stereo, 16 bit, 44.1 kHz), `deep.wav` (24 bit), `float.wav`, `mono.wav`
and `surround.wav` (5.1, 24 bit, 48 kHz), and write to `$O`.
"""

import dataclasses
import json
import pathlib
import shlex
import shutil
import subprocess

import numpy as np
import pytest
import soundfile

from pipelines.audio.reading import read_streams

FF = "ffmpeg -nostdin -v error -y"


@dataclasses.dataclass(frozen=True)
class Case:
    """A file.

    Attributes:
        name: what the file is called.
        command: makes it.
        parts: names of files whose sounds, one after the other, it holds, as ffmpeg decodes them; by default the file
            itself.
        tolerance: largest difference from ffmpeg's samples.
        remark: what the reader says of it, a pattern.
    """

    name: str
    command: str
    parts: tuple[str, ...] = ()
    tolerance: float = 0.0
    remark: str = ""

    @property
    def script(self) -> str:
        """The command with the name of the file, which may hold blanks, as the shell wants it."""
        return self.command.replace("$O", shlex.quote(self.name))

    @property
    def programs(self) -> set[str]:
        """The programs that must be installed, beside ffmpeg."""
        return {"flac", "lame", "sox"}.intersection(self.command.split())


def encoded(name: str, options: str, source: str = "song.wav", tolerance: float = 0.0, **more) -> Case:
    """A file that ffmpeg writes."""
    return Case(name, f"{FF} -i {source} {options} $O", tolerance=tolerance, **more)


WRONG_SIZE = (
    "python3 -c \"import sys; d = open('song.wav', 'rb').read(); i = d.index(b'data') + 4; "
    "open(sys.argv[1], 'wb').write(d[:i] + bytes.fromhex('{size}') + d[i + 4:])\" $O"
)
# One-bit samples, least significant bit first, in blocks of 4,096 bytes for each channel.
DSD = (
    'python3 -c "import random, struct, sys; random.seed(0); data = random.randbytes(8 * 8192); '
    "form = struct.pack('<4sQIIIIIIQII', b'fmt ', 52, 1, 0, 2, 2, 2822400, 1, 4 * 8 * 8192, 4096, 0); "
    "body = form + struct.pack('<4sQ', b'data', 12 + len(data)) + data; "
    "open(sys.argv[1], 'wb').write(struct.pack('<4sQQQ', b'DSD ', 28, 28 + len(body), 0) + body)\" $O"
)
# Two builds of one decoder round differently.
LOSSY = 2e-4

PCM = [
    *(
        encoded(f"{codec}.wav", f"-c:a {codec}", "float.wav")
        for codec in ("pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le")
    ),
    *(encoded(f"{codec}.wav", f"-c:a {codec}", "float.wav") for codec in ("pcm_f32le", "pcm_f64le")),
    *(encoded(f"{codec}.wav", f"-c:a {codec}", tolerance=LOSSY) for codec in ("pcm_alaw", "pcm_mulaw")),
    *(encoded(f"{codec}.wav", f"-c:a {codec}", tolerance=2e-3) for codec in ("adpcm_ms", "adpcm_ima_wav")),
    *(encoded(f"{rate}hz.wav", f"-ar {rate}") for rate in (8000, 11_025, 22_050, 48_000, 96_000, 192_000)),
    encoded("mono.wav.wav", "", "mono.wav"),
    encoded("surround.wav.wav", "-c:a pcm_s24le", "surround.wav"),
    encoded("rf64.wav", "-rf64 always"),
    encoded("s16.w64", "-c:a pcm_s16le"),
    encoded("s24.w64", "-c:a pcm_s24le", "deep.wav"),
    *(
        encoded(f"{codec}.aiff", f"-c:a {codec}", "float.wav")
        for codec in ("pcm_s8", "pcm_s16be", "pcm_s24be", "pcm_s32be")
    ),
    encoded("surround.aiff", "-c:a pcm_s24be", "surround.wav"),
    *(encoded(f"{codec}.au", f"-c:a {codec}", "float.wav") for codec in ("pcm_s16be", "pcm_s24be", "pcm_f32be")),
    encoded("mulaw.au", "-c:a pcm_mulaw"),
    *(encoded(f"{codec}.caf", f"-c:a {codec}", "float.wav") for codec in ("pcm_s16be", "pcm_s24le", "pcm_f32be")),
    encoded("pcm.nut", "-c:a pcm_s24le", "deep.wav"),
    encoded("pcm.mkv", "-c:a pcm_s24le", "deep.wav"),
    encoded("pcm.mov", "-c:a pcm_s24be", "deep.wav"),
    encoded("pcm.avi", "-c:a pcm_s16le"),
    encoded("sound.voc", ""),
    encoded("adx.adx", "", tolerance=LOSSY),
    Case("sox24.wav", "sox deep.wav -b 24 $O"),
    Case("sox8.voc", "sox song.wav -r 8000 -b 8 -e unsigned $O dither -S"),
    Case("sox.8svx", "sox mono.wav -b 8 $O"),
    Case("sox.aifc", "sox song.wav $O"),
    Case("sox.snd", "sox song.wav -t au $O"),
    Case("sox.sph", "sox song.wav $O"),
    Case("sox.sf", "sox song.wav $O"),
    Case("sox.caf", "sox deep.wav -b 24 $O"),
    Case("sox gsm.wav", "sox mono.wav -r 8000 -e gsm-full-rate $O", tolerance=LOSSY),
]
LOSSLESS = [
    encoded("s16.flac", ""),
    encoded("s24.flac", "", "deep.wav"),
    encoded("mono.flac", "", "mono.wav"),
    encoded("surround.flac", "", "surround.wav"),
    *(encoded(f"{rate}hz.flac", f"-ar {rate}") for rate in (8000, 96_000, 192_000)),
    Case("best.flac", "flac -s -8 -e -p song.wav -o $O"),
    Case("verbatim.flac", "flac -s -0 --disable-constant-subframes --disable-fixed-subframes deep.wav -o $O"),
    Case("of unknown length.flac", f"{FF} -i song.wav -f flac - | cat > $O"),
    Case("from a pipe.flac", "flac -s -c song.wav | cat > $O"),
    Case(
        "id3 in front.flac",
        "flac -s -f song.wav -o part.flac && printf 'ID3\\3\\0\\0\\0\\0\\0\\10abcdefgh' | cat - part.flac > $O",
    ),
    Case(
        "picture.flac",
        f"{FF} -f lavfi -i color=red:s=300x300:d=1 -frames:v 1 cover.png && "
        "flac -s song.wav --picture=cover.png -T TITLE=x -o $O",
    ),
    encoded("s16.ogg", "-c:a flac -f ogg"),
    encoded("surround.oga", "-c:a flac -f ogg", "surround.wav"),
    encoded("flac.mkv", "-c:a flac", "deep.wav"),
    encoded("flac.mp4", "-c:a flac -strict -2", "deep.wav"),
    encoded("s16.m4a", "-c:a alac"),
    encoded("s24.m4a", "-c:a alac", "deep.wav"),
    encoded("surround.m4a", "-c:a alac", "surround.wav"),
    encoded("alac.caf", "-c:a alac", "deep.wav"),
    encoded("s16.wv", ""),
    encoded("s24.wv", "", "deep.wav"),
    encoded("float.wv", "", "float.wav"),
    encoded("surround.wv", "", "surround.wav"),
    encoded("s16.tta", ""),
    encoded("s24.tta", "", "deep.wav"),
    # Its low-pass filter begins in another state.
    Case("sound.dsf", DSD, tolerance=1e-2),
    encoded("truehd.thd", "-c:a truehd -strict -2", "deep.wav"),
    encoded("mlp.mlp", "-c:a mlp -strict -2"),
]
MPEG = [
    *(encoded(f"{rate}hz.mp3", f"-ar {rate} -b:a 64k", tolerance=LOSSY) for rate in (8000, 22_050, 48_000)),
    encoded("cbr.mp3", "-b:a 128k", tolerance=LOSSY),
    encoded("without length.mp3", "-b:a 128k -write_xing 0", tolerance=LOSSY),
    Case(
        "quiet first.mp3",
        f"{FF} -i song.wav -af \"volume='if(lt(t,1),0,1)':eval=frame\" -q:a 0 -write_xing 0 $O",
        tolerance=LOSSY,
    ),
    Case("vbr.mp3", "lame --quiet -V 9 song.wav $O", tolerance=LOSSY),
    Case("abr.mp3", "lame --quiet --abr 150 song.wav $O", tolerance=LOSSY),
    Case("mono.mp3", "lame --quiet -m m song.wav $O", tolerance=LOSSY),
    Case("without tag.mp3", "lame --quiet -t -V 2 song.wav $O", tolerance=LOSSY),
    Case("mp3.wav", f"{FF} -i song.wav -c:a libmp3lame -f wav $O", tolerance=LOSSY),
    Case("as mp3.wav", f"{FF} -i song.wav -f mp3 $O", tolerance=LOSSY),
    Case(
        "tags at both ends.mp3",
        "lame --quiet --tt title --ta artist --add-id3v2 song.wav part.mp3 && "
        "(cat part.mp3; printf 'TAG%0125d' 0) > $O",
        tolerance=LOSSY,
    ),
    Case(
        "picture.mp3",
        f"{FF} -f lavfi -i color=red:s=300x300:d=1 -frames:v 1 cover.png && "
        f"{FF} -i song.wav -i cover.png -map 0 -map 1 -c:v copy -id3v2_version 3 $O",
        tolerance=LOSSY,
    ),
    encoded("sound.mp2", "-b:a 192k", tolerance=LOSSY),
    *(encoded(f"{name}.aac", options, tolerance=LOSSY) for name, options in (("stereo", ""), ("mono", "-ac 1"))),
    encoded("surround.aac", "", "surround.wav", tolerance=LOSSY),
    encoded("sound.m4a", "", tolerance=LOSSY),
    encoded("index in front.m4a", "-movflags faststart", tolerance=LOSSY),
    encoded("in fragments.mp4", "-movflags frag_keyframe+empty_moov -frag_duration 300000", tolerance=LOSSY),
    Case("trimmed.m4a", f"{FF} -i song.wav part.m4a && {FF} -ss 0.5 -t 1 -i part.m4a -c copy $O", tolerance=LOSSY),
    encoded("surround aac.m4a", "-c:a aac", "surround.wav", tolerance=LOSSY),
    encoded("sound.3gp", "-ar 8000 -ac 1 -c:a libopencore_amrnb -b:a 12.2k", tolerance=LOSSY),
    encoded("sound.amr", "-ar 8000 -ac 1", tolerance=LOSSY),
    # Some builds of ffmpeg crash when they read a transport stream.
    Case("aac.ts", f"{FF} -i song.wav a.aac && {FF} -i a.aac -c copy $O", ("a.aac",), LOSSY),
    encoded("mp2.mpg", "-c:a mp2 -f mpeg", tolerance=LOSSY),
    encoded("mp3.avi", "-c:a libmp3lame", tolerance=LOSSY),
    encoded("mp3.flv", "-c:a libmp3lame", tolerance=LOSSY),
    Case("aac.mkv", f"{FF} -i song.wav a.m4a && {FF} -i a.m4a -c copy $O", tolerance=LOSSY),
    Case("film.mp4", f"{FF} -f lavfi -i testsrc=d=2:s=64x64 -i song.wav -c:a aac $O", tolerance=LOSSY),
    Case(
        "two tracks.mp4",
        f"{FF} -i song.wav -i mono.wav -map 0 -map 1 $O",
        tolerance=LOSSY,
        remark="of its 2 sound tracks the first was read",
    ),
]
OTHERS = [
    *(
        encoded(f"{name}.ogg", options, tolerance=LOSSY)
        for name, options in (("stereo", "-c:a libvorbis"), ("mono", "-c:a libvorbis -ac 1"))
    ),
    encoded("surround.ogg", "-c:a libvorbis", "surround.wav", tolerance=LOSSY),
    *(Case(f"long.{name}", f"{FF} -stream_loop 4 -i song.wav $O", tolerance=LOSSY) for name in ("ogg", "opus")),
    encoded("vorbis.mkv", "-c:a libvorbis", tolerance=LOSSY),
    encoded("vorbis.webm", "-c:a libvorbis", tolerance=LOSSY),
    *(encoded(f"{name}.opus", options, tolerance=LOSSY) for name, options in (("stereo", ""), ("mono", "-ac 1"))),
    encoded("surround.opus", "-b:a 256k", "surround.wav", tolerance=LOSSY),
    encoded("opus.webm", "-c:a libopus", tolerance=LOSSY),
    encoded("opus.caf", "-c:a libopus", tolerance=LOSSY),
    encoded("speech.spx", "-c:a libspeex -ar 16000 -ac 1", tolerance=LOSSY),
    encoded("stereo.ac3", "", tolerance=LOSSY),
    encoded("surround.ac3", "", "surround.wav", tolerance=LOSSY),
    encoded("surround.eac3", "", "surround.wav", tolerance=LOSSY),
    encoded("surround.dts", "-c:a dca -strict -2", "surround.wav", tolerance=LOSSY),
    encoded("one.wma", "-c:a wmav1", tolerance=LOSSY),
    encoded("two.wma", "-c:a wmav2", tolerance=LOSSY),
    encoded("ac3.rm", "-c:a ac3", tolerance=LOSSY),
    encoded("144.rm", "-ac 1 -ar 8000 -c:a real_144", tolerance=LOSSY),
    Case("ac3.ts", f"{FF} -i surround.wav a.ac3 && {FF} -i a.ac3 -c copy $O", ("a.ac3",), LOSSY),
]
JOINED = [
    Case("two.mp3", f"{FF} -i song.wav one.mp3 && cat one.mp3 one.mp3 > $O", tolerance=LOSSY),
    Case("chained.ogg", f"{FF} -i song.wav a.ogg && cat a.ogg a.ogg > $O", ("a.ogg", "a.ogg"), LOSSY),
    Case("chained.opus", f"{FF} -i song.wav a.opus && cat a.opus a.opus > $O", ("a.opus", "a.opus"), LOSSY),
    Case(
        "vorbis and flac.ogg",
        f"{FF} -i song.wav a.ogg && {FF} -i song.wav -c:a flac -f ogg b.ogg && cat a.ogg b.ogg > $O",
        ("a.ogg", "b.ogg"),
        LOSSY,
    ),
    Case(
        "stereo and mono.aac",
        f"{FF} -i song.wav a.aac && {FF} -i mono.wav b.aac && cat a.aac b.aac > $O",
        tolerance=LOSSY,
    ),
    Case(
        "mono and stereo.aac",
        f"{FF} -i mono.wav a.aac && {FF} -i song.wav b.aac && cat a.aac b.aac > $O",
        tolerance=LOSSY,
    ),
    Case(
        "mono and stereo.mp3",
        f"{FF} -i mono.wav a.mp3 && {FF} -i song.wav b.mp3 && cat a.mp3 b.mp3 > $O",
        tolerance=LOSSY,
    ),
    Case(
        "zeros behind.mp3",
        f"{FF} -i song.wav a.mp3 && (cat a.mp3; head -c 4096 /dev/zero) > $O",
        (),
        LOSSY,
        "could not be decoded",
    ),
    Case(
        "lyrics behind.mp3",
        f"{FF} -i song.wav a.mp3 && (cat a.mp3; printf 'LYRICSBEGININD0000200000022LYRICS200') > $O",
        ("a.mp3",),
        LOSSY,
        ".*",
    ),
    Case("no size.wav", WRONG_SIZE.format(size="00000000")),
    Case("unknown size.wav", WRONG_SIZE.format(size="ffffffff")),
    Case("largest size.wav", WRONG_SIZE.format(size="ffffff7f")),
    Case("junk in front.wav", "sox song.wav --add-comment 'a long comment' $O"),
]
CASES = [*PCM, *LOSSLESS, *MPEG, *OTHERS, *JOINED]


def decode(path: pathlib.Path) -> tuple[np.ndarray, dict]:
    """The first sound track by ffmpeg, float32 `[num_samples, num_channels]`, and what ffprobe says of it."""
    probe = ["ffprobe", "-v", "error", "-select_streams", "a:0", "-show_streams", "-of", "json", path]
    stream = json.loads(subprocess.run(probe, capture_output=True, check=True).stdout)["streams"][0]
    command = [
        "ffmpeg",
        "-nostdin",
        "-v",
        "quiet",
        "-i",
        path,
        "-map",
        "0:a:0",
        "-c:a",
        "pcm_f32le",
        "-f",
        "f32le",
        "-",
    ]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.float32).reshape(-1, stream["channels"]), stream


def expected(path: pathlib.Path, case: Case) -> tuple[np.ndarray, dict]:
    """Decodes the file of a case by ffmpeg, or its parts one after the other; with what ffprobe says of the first."""
    decoded = [decode(path.with_name(part)) for part in case.parts or [case.name]]
    return np.concatenate([samples for samples, _ in decoded]), decoded[0][1]


def write_sources(folder: pathlib.Path, real_track: pathlib.Path) -> None:
    """Writes what the files are made from: 2 s of real music, every channel of which is another."""
    drums, bass, other, vocals = (samples[: 2 * 44_100] for samples in next(read_streams(real_track))[1:])
    soundfile.write(folder / "song.wav", drums + vocals, 44_100, "PCM_16")
    soundfile.write(folder / "deep.wav", drums + vocals, 44_100, "PCM_24")
    soundfile.write(folder / "float.wav", drums + vocals, 44_100, "FLOAT")
    soundfile.write(folder / "mono.wav", vocals[:, :1], 44_100, "PCM_16")
    channels = np.concatenate([drums, vocals, bass[:, :1], other[:, :1]], axis=1)
    soundfile.write(folder / "six.wav", channels, 48_000, "PCM_24")
    # Only ffmpeg writes which channel is where.
    command = "ffmpeg -v error -i six.wav -af channelmap=0|1|2|3|4|5:5.1 -c:a pcm_s24le surround.wav"
    subprocess.run(command.split(), cwd=folder, check=True)


def make(case: Case, sources: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Makes the file of a case in a folder, and returns its path; skips the test where a program is missing."""
    missing = [program for program in case.programs if not shutil.which(program)]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")
    for source in sources.iterdir():
        if not (folder / source.name).exists():
            (folder / source.name).symlink_to(source)
    subprocess.run(case.script, shell=True, cwd=folder, check=True)
    return folder / case.name
