// WAV files of 16 bit: their samples as a browser plays them, and back.

/**
 * Decodes at the file's own rate, where the browser has it.
 * @param {Blob} file
 * @returns {Promise<AudioBuffer>}
 */
export async function decode(file) {
  const bytes = await file.arrayBuffer();
  const head = new DataView(bytes);
  const rate = Math.min(Math.max(head.getUint32(24, true), 8000), 96000);
  return new OfflineAudioContext(head.getUint16(22, true), 1, rate).decodeAudioData(bytes);
}

/**
 * @param {AudioBuffer} buffer
 * @returns {Blob}
 */
export function encode(buffer) {
  const channels = buffer.numberOfChannels, frames = buffer.length, frameBytes = 2 * channels;
  const view = new DataView(new ArrayBuffer(44 + frames * frameBytes));
  const text = (at, word) => [...word].forEach((letter, index) => view.setUint8(at + index, letter.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + frames * frameBytes, true); text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, channels, true);
  view.setUint32(24, buffer.sampleRate, true); view.setUint32(28, buffer.sampleRate * frameBytes, true);
  view.setUint16(32, frameBytes, true); view.setUint16(34, 16, true);
  text(36, "data"); view.setUint32(40, frames * frameBytes, true);
  for (let channel = 0; channel < channels; channel++) {
    const samples = buffer.getChannelData(channel);
    for (let frame = 0; frame < frames; frame++) {
      const value = Math.round(Math.max(-1, Math.min(1, samples[frame])) * 32768);
      view.setInt16(44 + frame * frameBytes + 2 * channel, Math.min(value, 32767), true);
    }
  }
  return new Blob([view], { type: "audio/wav" });
}
