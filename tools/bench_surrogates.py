"""Print how fast every surrogate predicts, and which one cross-validation chooses on what problem.

    python tools/bench_surrogates.py [--rows 200] [--archs 1000000] [--threads 2]
    python tools/bench_surrogates.py --choices 60 120 250

Speed: architectures a second, encoding included, in the space of ofa-mbv3-w1.0; the values that
surrogates are fitted to are made up, saturating and with interactions. Targets on 2 cores: a
million a second for additive and linear ones, a hundred thousand for the others. Choices: those of
the surrogate "auto" after so many random evaluations, with Kendall's tau and the mean log
likelihood of all surrogates, on the recorded problem (where its files are) and the other ones.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from search_problems import RECORDED, Recorded, problems
from threadpoolctl import threadpool_limits

import hwsearch
from hwsearch.encoding import thermometer
from hwsearch.errors import InputError
from hwsearch.objectives import FloatArray
from hwsearch.prediction import Predictor
from hwsearch.prediction.registry import NAMES
from hwsearch.space import Architectures, SearchSpace

FAST = ("additive", "linear")
SLOW_SHARE = 10  # others predict so many times fewer architectures


def made_up(archs: Architectures) -> np.ndarray:
    """(n,) values of steps that add up, pair by pair too, below a ceiling."""
    rows = thermometer(archs)
    gains = np.random.default_rng(0).exponential(1.0 / rows.shape[1], rows.shape[1])
    pairs = rows[:, ::2][:, : rows.shape[1] // 2] * rows[:, 1::2]
    values: np.ndarray = 78.0 - 8.0 * np.exp(-2.0 * rows @ gains - 0.2 * pairs.mean(axis=1))
    return values


def main() -> None:
    """Print speeds, or choices."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--archs", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--choices", type=int, nargs="+", help="numbers of random evaluations")
    parser.add_argument("--recorded", type=Path, default=RECORDED, help="folder of the results")
    args = parser.parse_args()
    if args.choices:
        print_choices(args.choices, args.recorded)
    else:
        print_speeds(args.rows, args.archs, args.threads)


def print_choices(numbers: Sequence[int], folder: Path) -> None:
    """Print the surrogate chosen for every measured objective, and the scores of all."""
    targets: list[tuple[str, SearchSpace, Callable[[Architectures], FloatArray]]] = []
    if folder.is_dir():
        recorded = Recorded(folder)
        targets.append(("recorded top1", recorded.space, recorded.top1))
    for problem in problems():
        for column, objective in enumerate(problem.objectives):
            if objective.computed is None:
                name = f"{problem.name}, {objective.name}"
                targets.append((name, problem.space, partial(_column, problem.values, column)))
    for name, space, values in targets:
        for n in numbers:
            archs = space.sample_distinct(n, 0)
            selection = Predictor(space, "auto").fit(archs, values(archs)).selection
            assert selection is not None
            scores = ", ".join(
                f"{each.name} {each.tau:.2f} {each.log_likelihood:.2f}"
                for each in selection.scores
            )
            print(f"  {name:38s} {len(archs):4d} {selection.name:17s} {scores}", flush=True)


def _column(
    values: Callable[[Architectures], FloatArray], column: int, archs: Architectures
) -> FloatArray:
    chosen: FloatArray = values(archs)[:, column]
    return chosen


def print_speeds(n_rows: int, n_archs: int, n_threads: int) -> None:
    """Fit and time every surrogate."""
    space = hwsearch.load_supernet("ofa-mbv3-w1.0", checkpoint="random:0").space
    seen, asked = space.sample_distinct(n_rows, 0), space.sample(n_archs, 1)
    values = made_up(seen)
    print(f"fitted to {n_rows} architectures, {n_threads} threads")
    with threadpool_limits(n_threads):
        for name in NAMES:
            archs = asked if name in FAST else asked[: n_archs // SLOW_SHARE]
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
    for n in (16, 32, 64, 128, 256, 512):
        archs = space.sample_distinct(n, 0)
        values = made_up(archs)
        started = time.perf_counter()
        Predictor(space, "auto").fit(archs, values)
        print(f"  choice and fit at {n:3d} rows {(time.perf_counter() - started) * 1e3:6.0f} ms")


def _rate(archs: Architectures, predict: object) -> float:
    """Architectures a second, after one call that compiles what is compiled once."""
    assert callable(predict)
    predict(archs[:1000])
    started = time.perf_counter()
    predict(archs)
    return len(archs) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
