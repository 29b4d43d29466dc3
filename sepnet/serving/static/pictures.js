// Pictures of a stem on a canvas: its waveform, and its spectrogram on a logarithmic scale of frequency.

const FFT_LENGTH = 2048, LOWEST_HZ = 40, RANGE_DB = 80;
// From silence to loud: black, violet, red, orange, pale yellow.
const COLOURS = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]];

/** The largest magnitude of a buffer's samples. */
export function peakOf(buffer) {
  let peak = 0;
  for (const samples of samplesOf(buffer)) {
    for (const sample of samples) peak = Math.max(peak, Math.abs(sample));
  }
  return peak;
}

/** Draws the highest and the lowest sample of each column; the edges stand for `peak`. */
export function drawWaveform(canvas, buffer, colour, peak) {
  const { width, height, pen } = prepare(canvas);
  const channels = samplesOf(buffer);
  pen.fillStyle = colour;
  for (let column = 0; column < width; column++) {
    const first = Math.floor((column * buffer.length) / width);
    const last = Math.max(first + 1, Math.floor(((column + 1) * buffer.length) / width));
    let low = 0, high = 0;
    for (const samples of channels) {
      for (let index = first; index < last; index++) {
        if (samples[index] < low) low = samples[index];
        if (samples[index] > high) high = samples[index];
      }
    }
    const top = ((1 - high / peak) * height) / 2, bottom = ((1 - low / peak) * height) / 2;
    pen.fillRect(column, top, 1, Math.max(1, bottom - top));
  }
}

/** Draws the magnitude of each frequency, in decibels below full scale. */
export function drawSpectrogram(canvas, buffer) {
  const { width, height, pen } = prepare(canvas);
  const image = pen.createImageData(width, height);
  const window = Float32Array.from({ length: FFT_LENGTH }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / FFT_LENGTH));
  const nyquist = buffer.sampleRate / 2;
  const bins = Array.from({ length: height }, (_, row) =>
    Math.round(((LOWEST_HZ * (nyquist / LOWEST_HZ) ** (1 - row / (height - 1))) / nyquist) * (FFT_LENGTH / 2)));
  const channels = samplesOf(buffer), real = new Float32Array(FFT_LENGTH), imaginary = new Float32Array(FFT_LENGTH);
  for (let column = 0; column < width; column++) {
    const first = Math.round(((column + 0.5) * buffer.length) / width) - FFT_LENGTH / 2;
    imaginary.fill(0);
    for (let i = 0; i < FFT_LENGTH; i++) {
      let sum = 0;
      for (const samples of channels) sum += samples[first + i] ?? 0;
      real[i] = (sum / channels.length) * window[i];
    }
    fft(real, imaginary);
    for (let row = 0; row < height; row++) {
      const bin = Math.min(bins[row], FFT_LENGTH / 2 - 1);
      // A full-scale sine is 0 dB: its line is half of the window's sum high.
      const db = 20 * Math.log10(Math.hypot(real[bin], imaginary[bin]) / (FFT_LENGTH / 4) + 1e-9);
      image.data.set([...colourOf(1 + db / RANGE_DB), 255], 4 * (row * width + column));
    }
  }
  pen.putImageData(image, 0, 0);
}

function prepare(canvas) {
  const scale = Math.min(window.devicePixelRatio, 2);
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * scale));
  canvas.height = Math.max(2, Math.round(canvas.clientHeight * scale));
  return { width: canvas.width, height: canvas.height, pen: canvas.getContext("2d") };
}

function samplesOf(buffer) {
  return Array.from({ length: buffer.numberOfChannels }, (_, channel) => buffer.getChannelData(channel));
}

function colourOf(share) {
  const place = Math.max(0, Math.min(share, 1)) * (COLOURS.length - 1), index = Math.min(Math.floor(place), COLOURS.length - 2);
  return COLOURS[index].map((from, part) => from + (place - index) * (COLOURS[index + 1][part] - from));
}

/** The discrete Fourier transform in place; Cooley and Tukey, radix 2. */
function fft(real, imaginary) {
  const length = real.length;
  for (let i = 1, j = 0; i < length; i++) {
    let bit = length >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [real[i], real[j]] = [real[j], real[i]];
      [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
    }
  }
  for (let size = 2; size <= length; size *= 2) {
    for (let k = 0; k < size / 2; k++) {
      const cosine = Math.cos((2 * Math.PI * k) / size), sine = -Math.sin((2 * Math.PI * k) / size);
      for (let i = k; i < length; i += size) {
        const j = i + size / 2;
        const x = real[j] * cosine - imaginary[j] * sine, y = real[j] * sine + imaginary[j] * cosine;
        real[j] = real[i] - x; imaginary[j] = imaginary[i] - y;
        real[i] += x; imaginary[i] += y;
      }
    }
  }
}
