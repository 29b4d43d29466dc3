"""Pairs of clean and noisy files, in the layouts of VoiceBank-DEMAND and of the DNS challenge, against soundfile."""

import json
import re

import numpy as np
import pytest
import soundfile

from pipelines import check
from pipelines.copies.tracks import load_tracks
from pipelines.errors import UserError

SOURCES = ("speech", "noise")
RATE = 8000


@pytest.fixture(autouse=True)
def in_one_process(monkeypatch, fresh_cache):
    """Files this short are converted sooner than a worker starts."""
    monkeypatch.setattr("pipelines.workers.num_cores", lambda: 1)


def write_pair(root, clean, noisy, seed, num_samples=2000):
    """Writes two files by their paths below a folder."""
    generator = np.random.default_rng(seed)
    speech, noise = generator.integers(-9000, 9000, (2, num_samples)).astype(np.int16)
    for name, samples in ((clean, speech), (noisy, speech + noise)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, samples, RATE, "PCM_16")


@pytest.fixture
def voicebank(tmp_path):
    root = tmp_path / "voicebank"
    for number in range(1, 9):
        kind = "testset" if number > 6 else "trainset_28spk"
        write_pair(root, *(f"{side}_{kind}_wav/p226_{number:03}.wav" for side in ("clean", "noisy")), number)
    (root / "testset_txt").mkdir()
    (root / "testset_txt" / "p226_001.txt").write_text("words")
    return root


@pytest.fixture
def dns(tmp_path):
    root = tmp_path / "dns"
    for number in range(4):
        noisy = f"noisy/clnsp{number}_train_69005_1_snr15_tl-21_fileid_{number}.wav"
        write_pair(root, f"clean/clean_fileid_{number}.wav", noisy, number)
        write_pair(root, f"noise/noise_fileid_{number}.wav", f"noise/{number}.wav", number)
    return root


def check_stems(track, clean, noisy):
    expected = {"speech": clean, "mixture": noisy, "noise": noisy - clean}
    assert set(track.files) == set(expected)
    for stem, path in track.files.items():
        samples, rate = soundfile.read(path, dtype="int16")
        np.testing.assert_array_equal(samples, expected[stem])
        assert rate == RATE


def read(path):
    return soundfile.read(path, dtype="int16")[0]


def test_pairs_of_voicebank_are_songs(voicebank):
    found = load_tracks(voicebank, stems=SOURCES)
    assert [track.name for track in found["test"]] == ["p226_007", "p226_008"]
    names = [track.name for split in ("train", "valid") for track in found[split]]
    assert sorted(names) == [f"p226_{number:03}" for number in range(1, 7)] and found["valid"]
    for split, tracks in found.items():
        kind = "testset" if split == "test" else "trainset_28spk"
        for track in tracks:
            check_stems(
                track, *(read(voicebank / f"{side}_{kind}_wav/{track.name}.wav") for side in ("clean", "noisy"))
            )
    # As other songs: chosen among the stems that there are.
    with pytest.raises(UserError, match="hold mixture, speech, noise, not vocals"):
        load_tracks(voicebank, stems=("vocals", "noise"))


@pytest.mark.parametrize("folder", ["", "test"])
def test_pairs_of_the_dns_challenge_are_songs(dns, tmp_path, folder):
    if folder:
        dns.rename(tmp_path / folder)
        dns = tmp_path
    found = load_tracks(dns, stems=SOURCES)
    tracks = [track for split in found for track in found[split]]
    assert len(tracks) == 4 and (len(found["test"]) == 4) == (folder == "test")
    for track in tracks:
        number = track.name.rpartition("_")[2]
        clean = dns / folder / "clean" / f"clean_fileid_{number}.wav"
        check_stems(track, read(clean), read(dns / folder / "noisy" / f"{track.name}.wav"))


def test_bad_pairs_are_named(voicebank, capsys):
    train = voicebank / "clean_trainset_28spk_wav"
    (train / "p226_002.wav").unlink()
    soundfile.write(train / "p226_003.wav", np.zeros(1999), RATE, "PCM_16")
    soundfile.write(train / "p226_004.wav", np.zeros((2000, 2)), RATE, "PCM_16")
    problems = {
        "p226_002": "has no file in .*clean_trainset_28spk_wav; put it there",
        "p226_003": r"different lengths in samples \(clean 1999, noisy 2000\)",
        "p226_004": r"different numbers of channels \(clean 2, noisy 1\)",
    }
    with pytest.raises(UserError, match=f"song 'p226_002' {problems['p226_002']}.*--skip-bad .2 more"):
        load_tracks(voicebank, stems=SOURCES)
    assert check.main([str(voicebank), "--sources", "speech,noise", "--json"]) == 1
    songs = {song["name"]: song for song in json.loads(capsys.readouterr().out)["songs"]}
    assert {name for name, song in songs.items() if song["problems"]} == set(problems)
    for name, problem in problems.items():
        [found] = songs[name]["problems"]
        assert re.search(problem, found)
    found = load_tracks(voicebank, stems=SOURCES, skip_bad=True)
    assert {track.name for split in found.values() for track in split} == set(songs) - set(problems)


def test_good_pairs_add_up(voicebank, capsys):
    assert check.main([str(voicebank), "--sources", "speech,noise"]) == 0
    assert "8 songs, nothing wrong" in capsys.readouterr().out
