// Normal numbers that depend on a seed and a stream alone: Philox4x64-10 (Salmon et al. 2011), as numpy's
// `Philox(key=[seed, stream])` counts and reads it, then Box and Muller. `atelier/demo/noise.py` draws the same.

const MASK = (1n << 64n) - 1n;
const FACTORS = [0xd2e7470ee14c6c93n, 0xca5a826395121157n];
const STEPS = [0x9e3779b97f4a7c15n, 0xbb67ae8584caa73bn];
const ROUNDS = 10;

function philox(counter, key) {
  let [a, b, c, d] = counter;
  let [k, l] = key;
  for (let round = 0; round < ROUNDS; round++) {
    const first = FACTORS[0] * a;
    const second = FACTORS[1] * c;
    [a, b, c, d] = [(second >> 64n) ^ b ^ k, second & MASK, (first >> 64n) ^ d ^ l, first & MASK];
    k = (k + STEPS[0]) & MASK;
    l = (l + STEPS[1]) & MASK;
  }
  return [a, b, c, d];
}

/** `count` numbers in [0, 1) of 53 bits. */
function uniform(seed, stream, count) {
  const key = [BigInt(seed), BigInt(stream)];
  const drawn = [];
  for (let block = 1n; drawn.length < count; block++) {
    for (const word of philox([block, 0n, 0n, 0n], key)) drawn.push(Number(word >> 11n) / 2 ** 53);
  }
  return drawn.slice(0, count);
}

/** `count` standard normal numbers; a seed is a whole number from 0 to 2^53 - 1. */
export function normal(seed, stream, count) {
  const pairs = Math.ceil(count / 2);
  const drawn = uniform(seed, stream, 2 * pairs);
  const made = new Float64Array(2 * pairs);
  for (let i = 0; i < pairs; i++) {
    const radius = Math.sqrt(-2 * Math.log(1 - drawn[2 * i]));
    const angle = 2 * Math.PI * drawn[2 * i + 1];
    made[2 * i] = radius * Math.cos(angle);
    made[2 * i + 1] = radius * Math.sin(angle);
  }
  return made.slice(0, count);
}
