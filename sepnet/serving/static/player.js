// One transport for all stems: they start at one moment of one clock, so they stay in step to the sample.

// Time for the sources to be set up before they all begin.
const LEAD_SECONDS = 0.05;

export class Player extends EventTarget {
  /** @param {{name: string, buffer: AudioBuffer}[]} stems */
  constructor(stems) {
    super();
    this.stems = stems.map((stem) => ({ ...stem, solo: false, mute: false, volume: 1, gain: null }));
    this.duration = Math.max(...stems.map((stem) => stem.buffer.duration));
    this.context = null;
    this.sources = [];
    this.startedAt = 0;
    this.offset = 0;
    this.isPlaying = false;
  }

  /** Where the song is, in seconds. */
  get position() {
    if (!this.isPlaying) return this.offset;
    const passed = Math.max(0, this.context.currentTime - this.startedAt);
    return Math.min(this.offset + passed, this.duration);
  }

  async play() {
    if (this.isPlaying) return;
    // A browser gives sound only after a click or a key.
    this.context ??= new AudioContext();
    // From here on it plays, though nothing moves before it sounds: what is asked for during the wait counts.
    this.isPlaying = true;
    this.startedAt = Infinity;
    await this.context.resume();
    if (!this.isPlaying || this.sources.length) return;
    if (this.offset >= this.duration) this.offset = 0;
    this.startedAt = this.context.currentTime + LEAD_SECONDS;
    this.sources = this.#connect(this.context, this.startedAt, this.offset);
    this.sources[0].onended = () => this.#end();
    this.#changed();
  }

  pause() {
    this.offset = this.position;
    this.#stop();
    this.#changed();
  }

  async seek(seconds) {
    const wasPlaying = this.isPlaying;
    this.#stop();
    this.offset = Math.max(0, Math.min(seconds, this.duration));
    if (wasPlaying && this.offset < this.duration) await this.play();
    this.#changed();
  }

  /** Changes `solo`, `mute` or `volume` of a stem. */
  set(index, change) {
    Object.assign(this.stems[index], change);
    for (const stem of this.stems) {
      // A jump of the gain would click.
      stem.gain?.gain.setTargetAtTime(this.loudness(stem), this.context.currentTime, 0.01);
    }
    this.#changed();
  }

  /** How loud a stem is: solo silences the others, and mute itself. */
  loudness(stem) {
    const anySolo = this.stems.some((other) => other.solo);
    return stem.mute || (anySolo && !stem.solo) ? 0 : stem.volume;
  }

  /** What is heard, as one buffer, computed and not recorded. */
  render() {
    const { numberOfChannels, sampleRate } = this.stems[0].buffer;
    const length = Math.max(...this.stems.map((stem) => stem.buffer.length));
    const context = new OfflineAudioContext(numberOfChannels, length, sampleRate);
    this.#connect(context, 0, 0, false);
    return context.startRendering();
  }

  close() {
    this.#stop();
    this.context?.close();
  }

  #connect(context, when, offset, isLive = true) {
    return this.stems.map((stem) => {
      const source = new AudioBufferSourceNode(context, { buffer: stem.buffer });
      const gain = new GainNode(context, { gain: this.loudness(stem) });
      source.connect(gain).connect(context.destination);
      source.start(when, offset);
      if (isLive) stem.gain = gain;
      return source;
    });
  }

  #stop() {
    for (const source of this.sources) {
      source.onended = null;
      source.stop();
      source.disconnect();
    }
    this.sources = [];
    this.isPlaying = false;
  }

  #end() {
    this.offset = this.duration;
    this.#stop();
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
