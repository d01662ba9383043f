r"""Fit an accuracy predictor to evaluated architectures, and say on its card how far it is off.

    python tools/fit_predictor.py ofa-mbv3-w1.0 ../shared/bench/ofa_mbv3_w10_imagenet.csv \
        --source "..." --licence Apache-2.0 --out predictors/ofa-mbv3-w1.0/top1

A CSV has a row per evaluation: a column for every choice, empty where inactive, as `Run.trials`
writes it (or `ks`, `e` and `d` in the words of the once-for-all code), one for the objective, and
one, `run`, for the search that made it; without that column, a file is one search.

The rows of one search are near-duplicates. So the card's figures are about searches that were left
out; those of a random split are there as well, and called optimistic. The surrogate with the
highest likelihood on what was left out is fitted to all rows, with deviations widened until 95%
intervals hold 95% of what was left out; the card's figures of one search use the factor of the
other ones. What is written holds no row.
"""

import argparse
import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, KFold

import hwsearch
from hwsearch.errors import InputError
from hwsearch.prediction import Predictor
from hwsearch.prediction.selection import SurrogateScore, score_predictions
from hwsearch.space import Architectures, SearchSpace
from hwsearch.supernets.supernet import Supernet

SURROGATES = ("additive", "linear", "pairwise")
OFA_WORDS = ("ks", "e", "d")
N_FOLDS = 5
NORMAL_95 = 1.959964


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """Architectures and the values of one objective, in the order of the rows."""

    archs: Architectures
    values: np.ndarray
    runs: np.ndarray

    def at(self, chosen: np.ndarray) -> "Evaluated":
        """Some of the rows."""
        return Evaluated(
            archs=self.archs[chosen], values=self.values[chosen], runs=self.runs[chosen]
        )

    def without(self, others: Architectures) -> "Evaluated":
        """The rows of other architectures."""
        left = ~np.isin(self.archs.ids, others.ids)
        return self.at(np.flatnonzero(left))


def read_rows(paths: Sequence[Path], net: Supernet, objective: str) -> Evaluated:
    """Read the rows with a value; failed ones are left out."""
    archs, values, runs = [], [], []
    for path in paths:
        frame = pd.read_csv(path, dtype=dict.fromkeys(OFA_WORDS, str))
        if objective not in frame:
            raise InputError(f"{str(path)!r} has no column {objective!r}; give --objective")
        frame = frame[frame[objective].notna()]
        archs.append(net.space.architectures(_mappings(frame, net.full_space)))
        values.append(frame[objective].to_numpy(float))
        runs.append(frame["run"].astype(str) if "run" in frame else [path.stem] * len(frame))
    return Evaluated(
        archs=Architectures.concatenate(archs),
        values=np.concatenate(values),
        runs=np.concatenate(runs),
    )


def _mappings(frame: pd.DataFrame, space: SearchSpace) -> Any:
    if set(OFA_WORDS) <= set(frame.columns):
        return space.from_ofa(frame[list(OFA_WORDS)].to_dict("records"))
    choices = frame[[name for name in space.names if name in frame]]
    return [row.dropna().to_dict() for _, row in choices.astype(object).iterrows()]


def by_run(rows: Evaluated) -> Iterator[tuple[Evaluated, Evaluated]]:
    """Seen and held-out rows; no search and no architecture is in both."""
    n_folds = min(N_FOLDS, len(set(rows.runs)))
    for _, held in GroupKFold(n_folds).split(rows.values, groups=rows.runs):
        out = rows.at(held)
        yield rows.without(out.archs), out


def at_random(rows: Evaluated) -> Iterator[tuple[Evaluated, Evaluated]]:
    """Seen and held-out rows, drawn without regard to the search that made them."""
    for seen, held in KFold(N_FOLDS, shuffle=True, random_state=0).split(rows.values):
        yield rows.at(seen), rows.at(held)


@dataclass(frozen=True, kw_only=True)
class Validated:
    """What a surrogate said of rows that it had not seen."""

    runs: np.ndarray
    values: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    def widening(self, chosen: np.ndarray | slice = slice(None)) -> float:
        """The factor at which 95% intervals of some rows hold 95% of their values; 1 or more."""
        off = np.abs(self.values - self.mean)[chosen] / self.deviation[chosen]
        return max(1.0, float(np.quantile(off, 0.95)) / NORMAL_95)

    def widened(self) -> "Validated":
        """The same with the intervals of each search as wide as the other ones ask for."""
        deviation = self.deviation.copy()
        for run in set(self.runs):
            deviation[self.runs == run] *= self.widening(self.runs != run)
        return replace(self, deviation=deviation)

    def score(self, run: str | None = None) -> SurrogateScore:
        """Compare one search's values with what was said of them, or those of all."""
        at = slice(None) if run is None else self.runs == run
        return score_predictions(run or "all", self.values[at], self.mean[at], self.deviation[at])


def validate(name: str, splits: Iterator[tuple[Evaluated, Evaluated]]) -> Validated:
    """Predict every row by a surrogate that has not seen it."""
    parts = []
    for seen, held in splits:
        predictor = Predictor(seen.archs.space, name).fit(seen.archs, seen.values)
        parts.append((held.runs, held.values, *predictor.predict(held.archs)))
    runs, values, mean, deviation = map(np.concatenate, zip(*parts, strict=True))
    return Validated(runs=runs, values=values, mean=mean, deviation=deviation)


def figures(scored: SurrogateScore) -> dict[str, float]:
    """What a card says of one score."""
    return {
        "kendall_tau": round(scored.tau, 3),
        "mae": round(scored.mae, 3),
        "rmse": round(scored.rmse, 3),
        "coverage_of_95_intervals": round(scored.coverage, 3),
        "log_likelihood": round(scored.log_likelihood, 2),
    }


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The surrogate of choice, how much wider its intervals have to be, and what speaks for it."""

    surrogate: str
    factor: float
    facts: dict[str, Any]


def choose(rows: Evaluated) -> Choice:
    """Validate all surrogates, over searches where there are several."""
    names = sorted(set(rows.runs))
    if len(names) < 2:
        random = {name: validate(name, at_random(rows)) for name in SURROGATES}
        best = max(SURROGATES, key=lambda name: random[name].score().log_likelihood)
        return Choice(surrogate=best, factor=1.0, facts=random_split(random[best]))
    found = {name: validate(name, by_run(rows)) for name in SURROGATES}
    best = max(SURROGATES, key=lambda name: found[name].score().log_likelihood)
    factor, widened = found[best].widening(), found[best].widened()
    held_out = {
        "how": f"{min(N_FOLDS, len(names))} folds of whole searches; no architecture of what was "
        "held out is among what was seen",
        **figures(widened.score()),
        "deviations_widened_by": round(factor, 3),
        "coverage_before_that": round(found[best].score().coverage, 3),
        "by_run": {name: figures(widened.score(name)) for name in names},
        "other_surrogates": {
            name: figures(found[name].score()) for name in SURROGATES if name != best
        },
    }
    random = random_split(validate(best, at_random(rows)))
    return Choice(surrogate=best, factor=factor, facts={"held_out_runs": held_out, **random})


def random_split(validated: Validated) -> dict[str, Any]:
    """What the card says of random folds."""
    how = "5 random folds; optimistic, as rows of one search are near-duplicates"
    return {"random_split": {"how": how, **figures(validated.score())}}


def describe(rows: Evaluated, args: argparse.Namespace, net: Supernet) -> dict[str, Any]:
    """What the card says of supernet, rows, and where not to use it."""
    names, counts = np.unique(rows.runs, return_counts=True)
    low, high = float(rows.values.min()), float(rows.values.max())
    fixed = [choice for choice in net.space.choices if len(choice.options) == 1]
    weights = {} if net.untrained else {"weights": net.weights}
    checkpoint = {"checkpoint": args.checkpoint} if args.checkpoint else {}
    return {
        "supernet": net.family,
        "objective": args.objective,
        "created": args.created,
        **checkpoint,
        **weights,
        "rows": {
            "source": args.source,
            "licence": args.licence,
            "n_rows": len(rows.values),
            "n_distinct_architectures": len(rows.archs.unique()),
            "lowest": low,
            "highest": high,
            "runs": dict(zip(names.tolist(), counts.tolist(), strict=True)),
        },
        "not_for": [
            *(f"{choice.name} other than {choice.options[0]!r}" for choice in fixed),
            f"values far outside of {low:g} to {high:g}, which no row had",
            *args.not_for,
        ],
    }


def main() -> None:
    """Fit a predictor and write its folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("supernet", help="a name from 'hwsearch supernets'")
    parser.add_argument("csv", nargs="+", type=Path)
    parser.add_argument("--objective", default="top1")
    parser.add_argument("--checkpoint", help="which weights the rows are of, for the card")
    parser.add_argument("--random-weights", action="store_true", help="the weights are not here")
    parser.add_argument("--source", required=True, help="of the rows: who measured what, where")
    parser.add_argument("--licence", required=True, help="of the rows")
    parser.add_argument("--not-for", action="append", default=[], help="repeat it")
    parser.add_argument("--created", default=datetime.date.today().isoformat())
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    net = hwsearch.load_supernet(args.supernet, "random:0" if args.random_weights else None)
    rows = read_rows(args.csv, net, args.objective)
    choice = choose(rows)
    predictor = Predictor(net.space, choice.surrogate).fit(rows.archs, rows.values)
    predictor.widen(choice.factor)
    predictor.save(args.out, {**describe(rows, args, net), **choice.facts})
    for how, found in choice.facts.items():
        numbers = (f"{name} {v}" for name, v in found.items() if isinstance(v, int | float))
        print(f"{how}: {', '.join(numbers)}")
    print(f"{choice.surrogate}, fitted to {len(rows.values)} rows: {args.out}")


if __name__ == "__main__":
    main()
