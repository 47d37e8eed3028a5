"""Seconds and error of three ways to the trace of (S1 S2)^{1/2}: ``python benchmarks/frechet.py [--dims 2048] ...``.

The generated features are a symmetric positive affine map of the real ones, the optimal transport between them, so the
distance is known: |b|^2 + mean square of x - M x. Best of ``--repeats`` runs, the slow rivals once.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from scipy.linalg import sqrtm

from atelier.metrics import frechet_distance
from atelier.metrics.features import FloatArray


def known_pair(n: int, d: int, seed: int = 0) -> tuple[FloatArray, FloatArray, float]:
    """Real and generated features (n, d) and their exact distance."""
    generator = np.random.default_rng(seed)
    real = generator.standard_normal((n, d)) * np.linspace(0.1, 3, d)
    centred = real - real.mean(axis=0)
    direction = generator.standard_normal(d)
    direction /= np.linalg.norm(direction)
    shift = generator.standard_normal(d)
    moved = 0.7 * centred + 0.9 * np.outer(centred @ direction, direction)  # M = 0.7 I + 0.9 u u^T
    return real, moved + real.mean(axis=0) + shift, float(shift @ shift + ((centred - moved) ** 2).sum() / (n - 1))


def by_covariances(real: FloatArray, generated: FloatArray, trace: Callable[[FloatArray], complex]) -> float:
    """The textbook route: two covariances, their product, and ``trace`` of its square root."""
    first, second = np.cov(real, rowvar=False), np.cov(generated, rowvar=False)
    means = ((real.mean(axis=0) - generated.mean(axis=0)) ** 2).sum()
    return float(means + np.trace(first) + np.trace(second) - 2 * np.real(trace(first @ second)))


METHODS: dict[str, Callable[[FloatArray, FloatArray], float]] = {
    "nuclear norm (atelier)": frechet_distance,
    "eigvals": lambda x, y: by_covariances(x, y, lambda s: np.sqrt(np.linalg.eigvals(s).astype(complex)).sum()),
    "scipy sqrtm": lambda x, y: by_covariances(x, y, lambda s: np.trace(sqrtm(s))),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 768, 2048])
    parser.add_argument("--samples", type=int, nargs="+", default=[500])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{'d':>5} {'n':>6}  {'method':<24}{'seconds':>9}{'relative error':>16}")
    for d in arguments.dims:
        for n in arguments.samples:
            real, generated, truth = known_pair(n, d)
            for name, method in METHODS.items():
                times = []
                for _ in range(arguments.repeats if method is frechet_distance else 1):
                    start = time.perf_counter()
                    distance = method(real, generated)
                    times.append(time.perf_counter() - start)
                print(f"{d:>5} {n:>6}  {name:<24}{min(times):>9.3f}{abs(distance / truth - 1):>16.1e}", flush=True)


if __name__ == "__main__":
    main()
