"""The page's normal numbers: numpy's Philox4x64-10, keyed by a seed and a stream, then Box and Muller.

``page/noise.mjs`` draws the same, so that a seed paints one picture here and there.
"""

import numpy as np

from atelier.data.checks import FloatArray, check_whole

NOISE, LEAK = 0, 1  # streams: white noise is the same whichever leak is added


def normal(seed: int, stream: int, count: int) -> FloatArray:
    """``count`` standard normal numbers (count,) float64."""
    seed, stream = check_whole(seed, "seed", least=0), check_whole(stream, "stream", least=0)
    pairs = -(-check_whole(count, "count") // 2)
    words = np.random.Philox(key=np.array([seed, stream], np.uint64)).random_raw(2 * pairs)
    first, second = ((words >> np.uint64(11)).astype(np.float64) / 2.0**53).reshape(pairs, 2).T
    radius, angle = np.sqrt(-2 * np.log(1 - first)), 2 * np.pi * second
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)[:count]
