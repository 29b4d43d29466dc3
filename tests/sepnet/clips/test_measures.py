"""Measures against ffmpeg and SciPy, and on signals of which the answer is known."""

import shutil
import subprocess

import numpy as np
import pytest
import scipy.signal
import scipy.stats
import soundfile

from pipelines.errors import UserError
from sepnet.clips.measures import Measures, bleed, clipping, cross_powers, loudness_lufs, silence
from sepnet.clips.quality import Limits, gate
from tests.sepnet.clips.conftest import read_stems

RATE = 44_100
SOURCES = ("drums", "bass", "other", "vocals")
PASSES = Measures(loudness_lufs=-20.0, silence=0.1, bleed=0.1, clipping=0.0)


def noise(num_samples: int, num_channels: int = 2, seed: int = 0, level: float = 0.1) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (level * generator.standard_normal((num_samples, num_channels))).astype(np.float32)


def estimated_bleed(estimates: dict[str, np.ndarray], source: str) -> float:
    weights = [float(name == source) for name in estimates]
    return bleed(
        cross_powers([*estimates.values()], RATE), weights, [i for i, weight in enumerate(weights) if not weight]
    )


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
@pytest.mark.parametrize("kind", [*SOURCES, "quiet", "mono", "with pauses"])
def test_loudness_is_ffmpegs(stems, tmp_path, kind):
    vocals = stems["vocals"]
    audio = {
        **stems,
        "quiet": vocals * np.float32(0.003),
        "mono": vocals[:, :1],
        # Pauses are what the gate is for.
        "with pauses": np.concatenate([vocals, np.zeros_like(vocals), vocals * np.float32(0.01)]),
    }[kind]
    path = tmp_path / "clip.wav"
    soundfile.write(path, audio, RATE, "FLOAT")
    command = (
        "ffmpeg -nostdin -v error -i clip.wav -af ebur128=metadata=1,ametadata=print:key=lavfi.r128.I:file=- -f null -"
    )
    printed = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, check=True, text=True).stdout
    expected = float(printed.split("lavfi.r128.I=")[-1].split()[0])
    assert loudness_lufs(audio, RATE) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("audio", [np.zeros((RATE, 2), np.float32), noise(RATE, level=1e-5), noise(RATE // 4)])
def test_what_has_no_loudness(audio):
    assert loudness_lufs(audio, RATE) is None


def test_loudness_has_no_weights_for_more_channels():
    with pytest.raises(UserError, match="up to 5 channels, and there are 6"):
        loudness_lufs(noise(RATE, 6), RATE)


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000])
def test_silence_is_the_share_of_the_time(rate):
    audio = noise(4 * rate)
    assert silence(audio, rate) == 0
    audio[rate : 2 * rate] = 0
    # A hum at -61 dBFS is silence, one at -59 dBFS is not.
    audio[2 * rate : 3 * rate] = 10 ** (-61 / 20)
    audio[3 * rate :, 0] = 10 ** (-59 / 20) * 2**0.5
    audio[3 * rate :, 1] = 0
    assert silence(audio, rate) == pytest.approx(0.5, abs=0.01)
    assert silence(np.zeros((rate + 7, 2), np.float32), rate) == 1
    assert silence(audio[:3], rate) == 0


def test_clipping_is_the_share_of_samples_in_runs():
    audio = noise(1000)
    assert clipping(audio) == 0
    # One that touches full scale, and two.
    audio[10, 0], audio[20:22, 1] = 1, -1
    assert clipping(audio) == 0
    # Of a run of twelve, ten are the third in a row.
    audio[100:112, 1] = -32767 / 32768
    assert clipping(audio) == 10 / 2000
    audio[200:212, 0] = 1.5
    assert clipping(audio) == 20 / 2000


def test_bleed_between_two_is_their_coherence():
    first, second = noise(10 * RATE, 1, 1), noise(10 * RATE, 1, 2)
    # Only the lower half of the spectrum bleeds, and late by 2 ms.
    low = scipy.signal.lfilter(scipy.signal.firwin(101, 0.5), 1, np.roll(second, 80, axis=0), axis=0)
    clip = (first + 0.7 * low).astype(np.float32)
    options = {"fs": RATE, "nperseg": 1024, "detrend": False}
    _, coherence = scipy.signal.coherence(clip[:, 0], second[:, 0], **options)
    _, power = scipy.signal.welch(clip[:, 0], **options)
    num_frames = len(clip) // 512 - 1
    expected = 1 - (1 - np.average(coherence, weights=power)) * num_frames / (num_frames - 1)
    found = estimated_bleed({"clip": clip, "other": second}, "clip")
    assert 0.15 < found < 0.3
    assert found == pytest.approx(expected, abs=0.001)


@pytest.mark.parametrize("num_samples", [RATE // 2, 10 * RATE])
@pytest.mark.parametrize("num_others", [1, 3, 7])
def test_independent_signals_have_no_bleed(num_samples, num_others):
    signals = {str(place): noise(num_samples, seed=place) for place in range(num_others + 1)}
    assert estimated_bleed(signals, "0") == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("source", SOURCES)
def test_bleed_on_real_stems_is_near_the_share_that_was_added(stems, source):
    others = sum(stem for name, stem in stems.items() if name != source)
    found, true = [], []
    for gain in (0, 0.1, 0.3, 1):
        added = np.float32(gain) * others
        estimate = stems[source] + added
        found.append(estimated_bleed({**stems, source: estimate}, source))
        true.append(np.square(added).sum() / (np.square(estimate - added).sum() + np.square(added).sum()))
    assert found == sorted(set(found))
    assert found[0] < 0.03
    assert found == pytest.approx(true, abs=0.05)


def test_bleed_of_one_other_source_is_found(stems):
    """Bass alone in the drums, among louder others."""
    added = np.float32(0.3) * stems["bass"]
    true = np.square(added).sum() / (np.square(stems["drums"]).sum() + np.square(added).sum())
    assert estimated_bleed({**stems, "drums": stems["drums"] + added}, "drums") == pytest.approx(true, abs=0.02)


def test_bleed_does_not_depend_on_levels_and_length(stems):
    audible = estimated_bleed(stems, "bass")
    soft = {name: stem * np.float32(0.01 if name == "other" else 0.1) for name, stem in stems.items()}
    assert estimated_bleed(soft, "bass") == pytest.approx(audible, abs=1e-3)
    twice = {name: np.concatenate([stem, stem]) for name, stem in stems.items()}
    assert estimated_bleed(twice, "bass") == pytest.approx(audible, abs=0.01)


def test_bleed_puts_masked_stems_in_their_true_order(stems):
    """Stems by masks from hard to soft, against their projections on the true ones."""
    spectra = {name: scipy.signal.stft(stem.T, nperseg=4096)[2] for name, stem in stems.items()}
    mixture = sum(spectra.values())
    found, true = [], []
    for exponent in (0.25, 0.5, 1, 2, 20):
        magnitudes = {name: np.abs(spectrum) ** exponent for name, spectrum in spectra.items()}
        total = sum(magnitudes.values()) + 1e-20
        estimates = {
            name: scipy.signal.istft(magnitude / total * mixture, nperseg=4096)[1]
            .T[: len(stems[name])]
            .astype(np.float32)
            for name, magnitude in magnitudes.items()
        }
        for place, (name, estimate) in enumerate(estimates.items()):
            found.append(estimated_bleed(estimates, name))
            columns = np.stack([stem.ravel() for stem in stems.values()], axis=1).astype(np.float64)
            weights = np.linalg.lstsq(columns, estimate.ravel().astype(np.float64), rcond=None)[0]
            weights[place] = 0
            true.append(np.square(columns @ weights).sum() / np.square(estimate).sum())
    assert scipy.stats.spearmanr(found, true).statistic > 0.9
    # What docs/augment.md says of the ratio mask, whose exponent is 1.
    ratio = slice(2 * len(stems), 3 * len(stems))
    assert (min(found[ratio]), max(found[ratio])) == pytest.approx((0.10, 0.33), abs=0.01)
    assert (min(true[ratio]), max(true[ratio])) == pytest.approx((0.02, 0.07), abs=0.005)


def test_true_stems_of_music_have_little_bleed(openmsx):
    """Of the songs there, this is the one with the most."""
    stems = read_stems(openmsx / "test" / "boogi_marabi_redfarn.stem.mp4")
    assert max(estimated_bleed(stems, source) for source in stems) < 0.09


def test_where_bleed_cannot_be_told():
    crossed = cross_powers([noise(RATE), np.zeros((RATE, 2), np.float32)], RATE)
    assert bleed(crossed, [1, 1], []) is None
    assert bleed(crossed, [0, 1], [0]) is None
    assert bleed(crossed, [1, 0], [1]) == pytest.approx(0, abs=0.02)
    assert bleed(cross_powers([noise(100), noise(100, seed=1)], RATE), [1, 0], [1]) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"silence": 0.51}, "silence above 0.5"),
        ({"silence": 0.5}, None),
        ({"loudness_lufs": -40.1}, "loudness below -40 LUFS"),
        ({"loudness_lufs": None}, "no measurable loudness"),
        ({"bleed": 0.26}, "bleed above 0.25"),
        ({"bleed": None}, None),
        ({"clipping": 0.002}, "clipping above 0.001"),
    ],
)
def test_the_gate_says_why(changes, reason):
    limits = Limits(max_silence=0.5, min_loudness_lufs=-40.0, max_bleed=0.25, max_clipping=0.001)
    measures = Measures(**{**vars(PASSES), **changes})
    assert gate(measures, limits) == (() if reason is None else (reason,))
    assert gate(measures, Limits()) == ()


def test_the_gate_says_all_reasons():
    limits = Limits(max_silence=0.0, min_loudness_lufs=-10.0, max_bleed=0.0, max_clipping=0.0)
    measures = Measures(loudness_lufs=-20.0, silence=0.1, bleed=0.1, clipping=0.1)
    assert [reason.split()[0] for reason in gate(measures, limits)] == ["silence", "loudness", "bleed", "clipping"]
