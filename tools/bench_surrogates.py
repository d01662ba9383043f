"""Print how many architectures a second every surrogate predicts, encoding included.

    python tools/bench_surrogates.py [--rows 200] [--archs 1000000] [--threads 2]

The space is that of OFA-MobileNetV3 (45 choices, 110 columns); the values that surrogates are
fitted to are made up, saturating and with interactions. Targets on 2 cores: a million a second for
additive and linear ones, a hundred thousand for the others.
"""

import argparse
import time

import numpy as np
from bench_search import mobilenet_space
from threadpoolctl import threadpool_limits

from hwsearch.errors import InputError
from hwsearch.prediction import Predictor
from hwsearch.prediction.registry import NAMES
from hwsearch.prediction.selection import select_surrogate
from hwsearch.prediction.steps import encode_steps
from hwsearch.space import Architectures

FAST = ("additive", "linear")
SLOW_SHARE = 10  # others predict so many times fewer architectures


def made_up(archs: Architectures) -> np.ndarray:
    """(n,) values of steps that add up, pair by pair too, below a ceiling."""
    rows = encode_steps(archs)
    gains = np.random.default_rng(0).exponential(1.0 / rows.shape[1], rows.shape[1])
    pairs = rows[:, ::2][:, : rows.shape[1] // 2] * rows[:, 1::2]
    values: np.ndarray = 78.0 - 8.0 * np.exp(-2.0 * rows @ gains - 0.2 * pairs.mean(axis=1))
    return values


def main() -> None:
    """Fit and time every surrogate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--archs", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    space = mobilenet_space()
    seen, asked = space.sample_distinct(args.rows, 0), space.sample(args.archs, 1)
    values = made_up(seen)
    print(f"fitted to {args.rows} architectures, {args.threads} threads")
    with threadpool_limits(args.threads):
        for name in NAMES:
            archs = asked if name in FAST else asked[: args.archs // SLOW_SHARE]
            started = time.perf_counter()
            try:
                predictor = Predictor(space, name).fit(seen, values)
            except InputError as error:
                print(f"  {name:17s} {error}")
                continue
            fit_s = time.perf_counter() - started
            rates = [_rate(archs, each) for each in (predictor.predict_mean, predictor.predict)]
            print(
                f"  {name:17s} mean {rates[0]:11,.0f}/s   with deviation {rates[1]:11,.0f}/s"
                f"   fit {fit_s * 1e3:6.0f} ms"
            )
    with threadpool_limits(1):  # as `Predictor.fit` does
        for n in (16, 32, 64, 128, 256, 512):
            rows = encode_steps(space.sample_distinct(n, 0))
            started = time.perf_counter()
            select_surrogate(rows, made_up(space.sample_distinct(n, 0)), space)
            print(f"  selection at {n:3d} rows {(time.perf_counter() - started) * 1e3:6.0f} ms")


def _rate(archs: Architectures, predict: object) -> float:
    """Architectures a second, after one call that compiles what is compiled once."""
    assert callable(predict)
    predict(archs[:1000])
    started = time.perf_counter()
    predict(archs)
    return len(archs) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
