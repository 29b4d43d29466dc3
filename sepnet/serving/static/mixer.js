// The rows of stems: pictures, solo, mute, volume and downloads, and the transport above them.

import { drawSpectrogram, drawWaveform, peakOf } from "./pictures.js";
import { Player } from "./player.js";
import { encode } from "./wav.js";

const COLOURS = ["#e4572e", "#e09f1f", "#1fa8a5", "#9b6bd3", "#5a8dee", "#6aa84f", "#d16ba5", "#8c7b6b"];
const STEP_SECONDS = 5;
const $ = (id) => document.getElementById(id);

export class Mixer {
  /**
   * @param {{name: string, file: Blob, buffer: AudioBuffer}[]} stems
   * @param {string} song - its name, for downloads.
   * @param {Blob} zip - all stems.
   */
  constructor(stems, song, zip) {
    this.player = new Player(stems);
    this.song = song;
    // One scale for all: a soft stem looks soft. Silence must not be divided by.
    this.peak = Math.max(1e-6, ...stems.map((stem) => peakOf(stem.buffer)));
    this.urls = [];
    this.listening = new AbortController();
    this.rows = this.player.stems.map((stem, index) => this.#row(stem, index));
    $("stems").replaceChildren(...this.rows);
    this.#offer($("all"), zip, `${song}.stems.zip`);
    $("seek").max = this.player.duration;
    this.#listen($("play"), "click", () => this.toggle());
    this.#listen($("seek"), "input", () => this.player.seek(Number($("seek").value)));
    this.#listen($("mix"), "click", () => this.#downloadMix());
    this.#listen($("waveforms"), "click", () => this.draw(false));
    this.#listen($("spectrograms"), "click", () => this.draw(true));
    this.#listen(document, "keydown", (event) => this.#key(event));
    this.#listen(this.player, "change", () => this.#update());
    this.#listen(window, "resize", () => this.draw(this.isSpectrogram));
    this.draw(false);
    this.#update();
  }

  toggle() {
    return this.player.isPlaying ? this.player.pause() : this.player.play();
  }

  draw(isSpectrogram) {
    this.isSpectrogram = isSpectrogram;
    $("waveforms").ariaPressed = String(!isSpectrogram);
    $("spectrograms").ariaPressed = String(isSpectrogram);
    this.rows.forEach((row, index) => {
      const canvas = row.querySelector("canvas"), { buffer, name } = this.player.stems[index];
      if (isSpectrogram) drawSpectrogram(canvas, buffer);
      else drawWaveform(canvas, buffer, COLOURS[index % COLOURS.length], this.peak);
      canvas.ariaLabel = `${isSpectrogram ? "Spectrogram" : "Waveform"} of ${name}`;
    });
  }

  close() {
    this.player.close();
    this.listening.abort();
    this.urls.forEach((url) => URL.revokeObjectURL(url));
  }

  #row(stem, index) {
    const row = $("stem").content.cloneNode(true).firstElementChild;
    const part = (name) => row.querySelector(`.${name}`);
    row.dataset.stem = stem.name;
    part("name").textContent = stem.name;
    part("solo").ariaLabel = `Solo ${stem.name}`;
    part("mute").ariaLabel = `Mute ${stem.name}`;
    part("volume").ariaLabel = `Volume of ${stem.name}`;
    part("solo").onclick = () => this.player.set(index, { solo: !stem.solo });
    part("mute").onclick = () => this.player.set(index, { mute: !stem.mute });
    part("volume").oninput = (event) => this.player.set(index, { volume: Number(event.target.value) });
    this.#offer(part("download"), stem.file, `${this.song}.${stem.name}.wav`);
    part("download").ariaLabel = `Download ${stem.name}`;
    row.querySelector("canvas").role = "img";
    part("picture").onclick = (event) => {
      const { left, width } = part("picture").getBoundingClientRect();
      this.player.seek(((event.clientX - left) / width) * this.player.duration);
    };
    return row;
  }

  #offer(link, blob, name) {
    link.href = URL.createObjectURL(blob);
    link.download = name;
    this.urls.push(link.href);
  }

  async #downloadMix() {
    const link = document.createElement("a");
    this.#offer(link, encode(await this.player.render()), `${this.song}.mix.wav`);
    link.click();
  }

  #listen(target, kind, action) {
    target.addEventListener(kind, action, { signal: this.listening.signal });
  }

  #key(event) {
    const isTyping = event.target.matches("input:not([type=range]), select, textarea");
    if ($("player").hidden || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    const { player } = this;
    const stem = /^Digit([1-9])$/.exec(event.code);
    const onSlider = event.target.matches("input[type=range]");
    if (event.key === " " && !event.target.matches("button, a")) this.toggle();
    else if (event.key === "ArrowLeft" && !onSlider) player.seek(player.position - STEP_SECONDS);
    else if (event.key === "ArrowRight" && !onSlider) player.seek(player.position + STEP_SECONDS);
    else if (event.key === "Home" && !onSlider) player.seek(0);
    else if (stem && stem[1] <= player.stems.length) {
      const index = stem[1] - 1, what = event.shiftKey ? "mute" : "solo";
      player.set(index, { [what]: !player.stems[index][what] });
    } else return;
    event.preventDefault();
  }

  #update() {
    const { player } = this;
    $("play").textContent = player.isPlaying ? "Pause" : "Play";
    $("play").ariaPressed = String(player.isPlaying);
    this.rows.forEach((row, index) => {
      const stem = player.stems[index];
      row.querySelector(".solo").ariaPressed = String(stem.solo);
      row.querySelector(".mute").ariaPressed = String(stem.mute);
      row.classList.toggle("silent", player.loudness(stem) === 0);
    });
    this.#move();
  }

  #move() {
    const { player } = this, { position } = player;
    $("time").value = `${clock(position)} / ${clock(player.duration)}`;
    $("seek").value = position;
    for (const row of this.rows) {
      row.querySelector(".playhead").style.left = `${(100 * position) / player.duration}%`;
    }
    cancelAnimationFrame(this.frame);
    if (player.isPlaying) this.frame = requestAnimationFrame(() => this.#move());
  }
}

function clock(seconds) {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}
