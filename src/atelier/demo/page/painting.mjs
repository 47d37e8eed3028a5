// One picture: the first latent (white noise, with a signal leak and chosen colours added), DDIM, decoding.

import { normal } from "./noise.mjs";

const NOISE = 0; // streams of a seed, as in `atelier/demo/noise.py`
const LEAK = 1;

/** The plane (side x side) of a frequency (u, v) of the orthonormal two-dimensional DCT. */
export function plane([u, v], side) {
  const wave = (frequency, place) =>
    Math.sqrt((frequency ? 2 : 1) / side) * Math.cos((Math.PI * (2 * place + 1) * frequency) / (2 * side));
  return Float64Array.from({ length: side * side }, (_, i) => wave(u, Math.floor(i / side)) * wave(v, i % side));
}

/** A drawn leak (channels x side x side): elements by themselves, plus jointly drawn low frequencies. */
function drawnLeak(leak, shape, seed) {
  const { channels, side } = shape;
  const size = channels * side * side;
  const drawn = normal(seed, LEAK, size + leak.low_mean.length);
  const made = Float64Array.from({ length: size }, (_, i) => leak.mean[i] + leak.std[i] * drawn[i]);
  const width = leak.low_mean.length;
  for (let row = 0; row < width; row++) {
    let value = leak.low_mean[row];
    for (let column = 0; column < width; column++) value += leak.root[row * width + column] * drawn[size + column];
    const wave = plane(leak.frequencies[Math.floor(row / channels)], side);
    const channel = row % channels;
    for (let i = 0; i < wave.length; i++) made[channel * side * side + i] += value * wave[i];
  }
  return made;
}

/**
 * The first latent: alpha (leak + colours) + sigma noise (Everaert et al. 2024, eq. 3).
 * `leak`: one of the shipped ones, or null; `colours`: standard deviations along each shipped direction.
 */
export function firstLatent(settings, leak, colours, seed) {
  const { channels, side } = settings.shape;
  const area = side * side;
  const noise = normal(seed, NOISE, channels * area);
  const shifts = Array.from({ length: channels }, (_, channel) =>
    colours.reduce((sum, value, i) => sum + value * settings.colours[i].shift[channel], 0));
  if (!leak && shifts.every((shift) => shift === 0)) return Float32Array.from(noise);
  const signal = leak ? drawnLeak(leak, settings.shape, seed) : new Float64Array(channels * area);
  // without a leak the noise keeps its full share, as white noise has it
  const { alpha, sigma } = settings.steps[0];
  const share = leak ? sigma : 1;
  return Float32Array.from(noise, (value, i) => alpha * (signal[i] + shifts[Math.floor(i / area)]) + share * value);
}

/**
 * DDIM with eta = 0 (Song et al. 2021, eq. 12) and classifier-free guidance (Ho and Salimans 2021, eq. 6).
 * `denoise(latents of a batch of two, time)`: predicted noise without words, then with them, one after the other.
 */
export async function lastLatent(settings, first, guidance, denoise) {
  const size = first.length;
  let latent = first;
  for (const { time, alpha, sigma, alpha_next: alphaNext, sigma_next: sigmaNext } of settings.steps) {
    const both = new Float32Array(2 * size);
    both.set(latent, 0);
    both.set(latent, size);
    const noise = await denoise(both, time);
    latent = Float32Array.from(latent, (value, i) => {
      const plain = noise[i];
      const worded = noise[size + i];
      const predicted = guidance > 1 ? plain + guidance * (worded - plain) : worded;
      return alphaNext * ((value - sigma * predicted) / alpha) + sigmaNext * predicted;
    });
  }
  return latent;
}

/** A decoded picture (3 x size x size), about [-1, 1], as bytes for a canvas: red, green, blue, opaque. */
export function pixels(picture) {
  const area = picture.length / 3;
  const bytes = new Uint8ClampedArray(4 * area).fill(255);
  for (let i = 0; i < area; i++) {
    for (let colour = 0; colour < 3; colour++) {
      bytes[4 * i + colour] = (Math.min(1, Math.max(-1, picture[colour * area + i])) + 1) * 127.5;
    }
  }
  return bytes;
}
