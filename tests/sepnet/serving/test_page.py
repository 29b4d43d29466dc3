"""The page in a headless Chromium: a song goes in, its stems play in step, and can be picked and downloaded."""

import os
import pathlib
import shutil
import zipfile

import numpy as np
import pytest
import soundfile
from playwright.sync_api import expect, sync_playwright

from pipelines.demo_songs import synthesis
from sepnet.serving.engine.options import ServeOptions
from tests.sepnet.helpers import noise
from tests.sepnet.serving.conftest import running

RATE = 16_000
SECONDS = 9
# Vocals and drums are each other's opposite: together and in step they are silence.
GAINS = {"vocals": 0.5, "drums": -0.5, "bass": 0.25, "other": 0.125}
TONE_HZ = 1000
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# A busy machine is no fault of the page.
expect.set_options(timeout=20_000)
# The sum of stems as they are played, taken from the graph that is playing.
LISTEN = """async (indices) => {
  const { player } = window.sepnet.mixer, analyser = new AnalyserNode(player.context, { fftSize: 8192 });
  for (const index of indices) player.stems[index].gain.connect(analyser);
  await new Promise((resolve) => setTimeout(resolve, 500));
  const samples = new Float32Array(analyser.fftSize);
  analyser.getFloatTimeDomainData(samples);
  for (const index of indices) player.stems[index].gain.disconnect(analyser);
  return Math.max(...samples.map(Math.abs));
}"""


def test_the_demo_song_comes_with_its_name(server, tmp_path, monkeypatch):
    song = tmp_path / "Crystal Daylight"
    song.mkdir()
    (song / "mixture.wav").write_bytes(b"a song")
    monkeypatch.setattr(synthesis, "demo_test_song", lambda: song)
    answer = server.get("/demo-song")
    assert answer.content == b"a song"
    # The form that the page's script looks for.
    assert answer.headers["content-disposition"] == 'attachment; filename="Crystal Daylight.wav"'


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    with sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, PROGRAMS)), playwright.chromium.executable_path)
        if not pathlib.Path(found).exists():
            pytest.skip("there is no Chromium on this machine; `make browser` installs one")
        # Chromium's sandbox does not work for root.
        is_root = hasattr(os, "geteuid") and os.geteuid() == 0
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"] if is_root else [])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    """A song of a tone under noise."""
    seconds = np.arange(SECONDS * RATE)[:, None] / RATE
    samples = 0.5 * np.sin(2 * np.pi * TONE_HZ * seconds) + 0.02 * noise(SECONDS * RATE, 2)
    path = tmp_path_factory.mktemp("songs") / "My song.wav"
    soundfile.write(path, samples, RATE, "PCM_16")
    return path


@pytest.fixture(scope="module")
def server(gain_model):
    folder = gain_model(GAINS, sample_rate=RATE)
    with running(ServeOptions(saved_models=folder.parent)) as found:
        yield found


@pytest.fixture
def page(browser, server):
    """The page, opened; it asks no other host and its scripts make no errors."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(20_000)
    foreign, errors = [], []
    own = (server.url, f"blob:{server.url}")
    page.on("request", lambda request: None if request.url.startswith(own) else foreign.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(server.url)
    yield page
    page.close()
    assert foreign == [] and errors == []


@pytest.fixture
def player(page, song):
    """The page when it has separated the song."""
    page.set_input_files("#file", song)
    page.wait_for_selector("#player:not([hidden])")
    return page


def heard(page):
    """The beginning of what the page would let hear, of the first channel."""
    script = "async () => Array.from((await window.sepnet.mixer.player.render()).getChannelData(0).slice(0, 9000))"
    return np.array(page.evaluate(script))


def test_the_model_and_its_numbers_are_shown(page):
    expect(page.locator("#model")).to_have_value("gains")
    expect(page.locator("#facts")).to_contain_text("vocals, drums, bass, other")


def test_an_upload_becomes_stems_with_progress(page, song):
    seen = []
    page.expose_function("tell", lambda text: seen.append(text))
    page.evaluate("new MutationObserver(() => tell(doing.textContent)).observe(doing, { childList: true })")
    page.set_input_files("#file", song)
    page.wait_for_selector("#player:not([hidden])")
    assert [page.locator(".stem .name").nth(index).inner_text() for index in range(4)] == list(GAINS)
    assert any("is being sent" in text for text in seen), seen
    expect(page.locator("#time")).to_have_text(f"0:00 / 0:0{SECONDS}")


def test_stems_play_in_step(player):
    """Opposites cancel while they are played: a difference of one sample would be heard."""
    player.click("#play")
    expect(player.locator("#play")).to_have_text("Pause")
    for _ in range(2):
        assert player.evaluate(LISTEN, [0]) == pytest.approx(0.25, abs=0.02)
        assert player.evaluate(LISTEN, [0, 1]) < 2 / 32768
        player.evaluate("window.sepnet.mixer.player.seek(3.3)")
    player.wait_for_timeout(200)
    player.keyboard.press("Space")
    position = player.evaluate("window.sepnet.mixer.player.position")
    assert 3.3 < position < SECONDS
    player.wait_for_timeout(200)
    assert player.evaluate("window.sepnet.mixer.player.position") == position


def test_what_is_asked_for_before_it_sounds_counts(player):
    """A second Play starts nothing more, and Pause is not undone."""
    player.click("#play")
    expect(player.locator("#play")).to_have_text("Pause")
    starts = player.evaluate(
        """async () => {
          const { player } = window.sepnet.mixer, { start } = AudioBufferSourceNode.prototype;
          let starts = 0;
          AudioBufferSourceNode.prototype.start = function (...given) { starts++; start.apply(this, given); };
          player.pause();
          await Promise.all([player.play(), player.play()]);
          const ofTwo = starts;
          player.pause();
          const waiting = player.play();
          player.pause();
          await waiting;
          return [ofTwo, starts - ofTwo, player.isPlaying];
        }"""
    )
    assert starts == [len(GAINS), 0, False]


def test_solo_mute_and_volume_act_on_what_is_heard(player, song):
    samples = soundfile.read(song)[0][:9000, 0]

    def check(gain):
        np.testing.assert_allclose(heard(player), gain * samples, rtol=0, atol=4 / 32768)

    check(0.375)
    player.click("[data-stem=bass] .solo")
    check(0.25)
    player.click("[data-stem=other] .solo")
    check(0.375)
    player.click("[data-stem=bass] .mute")
    check(0.125)
    expect(player.locator("[data-stem=bass] .mute")).to_have_attribute("aria-pressed", "true")
    player.fill("[data-stem=other] .volume", "0.5")
    check(0.0625)
    for key in ("3", "4", "Shift+3"):
        player.locator("#time").click()
        player.keyboard.press(key)
    check(0.3125)


def test_the_transport_can_be_moved(player):
    def position():
        return player.evaluate("window.sepnet.mixer.player.position")

    box = player.locator("[data-stem=drums] .picture").bounding_box()
    player.mouse.click(box["x"] + box["width"] / 2, box["y"] + 10)
    assert position() == pytest.approx(SECONDS / 2, abs=0.05)
    player.keyboard.press("ArrowRight")
    assert position() == SECONDS
    player.keyboard.press("ArrowLeft")
    assert position() == pytest.approx(SECONDS - 5, abs=1e-6)
    player.fill("#seek", "2.5")
    assert position() == 2.5
    player.locator("#time").click()
    player.keyboard.press("Home")
    assert position() == 0


def test_what_is_downloaded_is_what_was_separated(player, song, tmp_path):
    samples = soundfile.read(song)[0]

    def download(selector):
        with player.expect_download() as downloading:
            player.click(selector)
        path = tmp_path / downloading.value.suggested_filename
        downloading.value.save_as(path)
        return path

    stem = download("[data-stem=drums] .download")
    assert stem.name == "My song.drums.wav"
    np.testing.assert_allclose(soundfile.read(stem)[0], -0.5 * samples, rtol=0, atol=1 / 32768)
    with zipfile.ZipFile(download("#all")) as archive:
        assert archive.testzip() is None and archive.namelist() == [f"{source}.wav" for source in GAINS]
        assert archive.read("drums.wav") == stem.read_bytes()
    player.click("[data-stem=drums] .mute")
    mix, rate = soundfile.read(download("#mix"))
    assert rate == RATE
    np.testing.assert_allclose(mix, 0.875 * samples, rtol=0, atol=4 / 32768)


def test_a_spectrogram_shows_a_tone_where_it_is(player):
    player.click("#spectrograms")
    share = player.evaluate(
        """() => {
          const canvas = document.querySelector("[data-stem=vocals] canvas"), { width, height } = canvas;
          const { data } = canvas.getContext("2d").getImageData(width / 2, 0, 1, height);
          const light = Array.from({ length: height }, (_, row) => data[4 * row] + data[4 * row + 1]);
          return light.indexOf(Math.max(...light)) / (height - 1);
        }"""
    )
    hz = 40 * (RATE / 2 / 40) ** (1 - share)
    assert TONE_HZ / 1.1 < hz < TONE_HZ * 1.1


def test_it_fits_a_phone_and_can_be_used_by_keys_alone(page, song):
    page.set_viewport_size({"width": 360, "height": 740})
    page.set_input_files("#file", song)
    page.wait_for_selector("#player:not([hidden])")
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    expect(page.locator("#play")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#play")).to_have_text("Pause")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.ariaLabel || document.activeElement.textContent.trim()"))
    for name in ("Solo drums", "Mute drums", "Volume of drums", "Download drums", "Download all stems", "Another song"):
        assert name in reached


def test_the_demo_song_can_be_taken(page, song, monkeypatch, tmp_path):
    shutil.copy(song, tmp_path / "mixture.wav")
    monkeypatch.setattr("pipelines.demo_songs.synthesis.demo_test_song", lambda: tmp_path)
    page.click("#demo")
    page.wait_for_selector("#player:not([hidden])")
    assert page.locator(".stem").count() == len(GAINS)


def test_it_can_be_stopped_whatever_it_is_at(page, song):
    page.route("**/demo-song", lambda _: None)
    page.click("#demo")
    page.click("#cancel")
    expect(page.locator("#source")).to_be_visible()
    page.evaluate(
        """() => {
          const { prototype } = OfflineAudioContext, { decodeAudioData } = prototype;
          window.held = [];
          window.decoding = [];
          prototype.decodeAudioData = function (bytes) {
            const begin = new Promise((resolve) => window.held.push(resolve));
            document.body.dataset.held = window.held.length;
            window.decoding.push(begin.then(() => decodeAudioData.call(this, bytes)));
            return window.decoding.at(-1);
          };
        }"""
    )
    page.set_input_files("#file", song)
    expect(page.locator("#doing")).to_have_text("is being opened")
    # wait_for_function() compiles a string each time that it asks again, which the page's policy forbids.
    expect(page.locator("body")).to_have_attribute("data-held", str(len(GAINS)))
    page.click("#cancel")
    expect(page.locator("#source")).to_be_visible()
    page.evaluate("held.forEach((begin) => begin())")
    page.evaluate("Promise.all(decoding).then(() => new Promise((resolve) => setTimeout(resolve)))")
    expect(page.locator("#player")).to_be_hidden()
    expect(page.locator("#error")).to_be_hidden()


def test_what_cannot_be_separated_is_said(browser, server, tmp_path):
    (tmp_path / "text.wav").write_text("no audio at all")
    page = browser.new_page()
    page.goto(server.url)
    page.set_input_files("#file", tmp_path / "text.wav")
    expect(page.locator("#error")).to_contain_text("no audio file")
    expect(page.locator("#source")).to_be_visible()
    page.close()


def test_a_token_is_asked_for(browser, gain_model):
    folder = gain_model(GAINS, sample_rate=RATE)
    with running(ServeOptions(saved_models=folder.parent, token="s3cret")) as server:
        page = browser.new_page()
        page.goto(server.url)
        page.fill("#token", "wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#token-form")).to_be_visible()
        page.fill("#token", "s3cret")
        page.keyboard.press("Enter")
        expect(page.locator("#model")).to_have_value("gains")
        page.close()
