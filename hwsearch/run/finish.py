"""From evaluated trials to a front: confirmation, export, verification, report scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.constraints import closest_to_feasible
from hwsearch.devices import MeasureSettings
from hwsearch.errors import EvaluationError, InfeasibleError, VerificationError
from hwsearch.evaluation.evaluator import Evaluator
from hwsearch.evaluation.measurements import LATENCY, noisy_low
from hwsearch.files import sha256_of, staged_folder
from hwsearch.kit.manifest import Manifest
from hwsearch.models.artifact import (
    MODEL,
    Exported,
    write_card,
    write_files,
    write_listed_card,
)
from hwsearch.run.candidates import Prediction, predictions, write_second_kit
from hwsearch.run.front import contender_rows, front_rows
from hwsearch.run.front_probability import front_probabilities
from hwsearch.run.member import Number, row_of, stated
from hwsearch.run.progress import Progress
from hwsearch.run.setup import Setup
from hwsearch.space import Architecture
from hwsearch.trials import Measurement, TrialState
from hwsearch.verify.subnet import check_probe, probe_answers, run_infer, verify_export

CONFIRM = MeasureSettings(half_width=0.01, seconds_per_model=2.5)
VERIFIED_SAMPLES = 256
Values = dict[str, NDArray[np.float64]]


class Finisher:
    """Computes the front of a run from its trials."""

    def __init__(
        self, setup: Setup, evaluator: Evaluator, subnets: Path, progress: Progress
    ) -> None:
        self.setup, self.evaluator, self.progress = setup, evaluator, progress
        self.store = evaluator.store
        self.subnets = subnets
        self._timed: dict[str, str] = {}  # SHA-256 of the model of every key that a kit timed

    def finish(self) -> list[dict[str, Any]]:
        """Confirm, export and score the front; return a row per member, by the first objective.

        Raises:
            InfeasibleError: No trial satisfies the constraints; the text names the closest.
        """
        keys, values = self._search_values()
        contenders = self._contenders(keys, values)
        confirmed = self._confirm([keys[row] for row in contenders])
        return self._front(keys, values, contenders, confirmed)

    def confirm(self, timings: Mapping[str, Measurement], kit: Manifest) -> list[dict[str, Any]]:
        """Return the rows of the front of candidates that a kit timed; see `finish`."""
        self._timed = {model.key: model.shipped for model in kit.models}
        keys, values = self._search_values()
        contenders = [row for row, key in enumerate(keys) if key in timings]
        return self._front(keys, values, contenders, timings)

    def candidates(self, kit: Path) -> list[dict[str, Any]]:
        """Export the non-dominated trials by predicted latencies, and write a kit that times them.

        The kit also has the trials that may be non-dominated within the intervals of predictions.
        Rows and errors are as for `finish`.
        """
        keys, values = self._search_values()
        contenders = [keys[row] for row in self._contenders(keys, values)]
        best = [keys[row] for row in self._feasible_front(values, keys)]
        predicted = predictions(self.setup, self._archs(best))
        rows = self._export_all(best, {key: predicted[key][LATENCY] for key in best})
        others = [key for key in contenders if key not in best]
        self.progress.phase("kit", len(best) + len(others))
        archs = self._archs([*best, *others])
        write_second_kit(self.setup, self.evaluator, archs, kit, CONFIRM, self.progress)
        return rows

    def _front(
        self,
        keys: Sequence[str],
        values: Values,
        contenders: Sequence[int],
        confirmed: Mapping[str, Measurement | None],
    ) -> list[dict[str, Any]]:
        """Export the front by confirmed latencies."""
        kept = [row for row in contenders if keys[row] in confirmed]
        final = {name: array[kept] for name, array in values.items()}
        if LATENCY in final:
            final[LATENCY] = np.array([_latency(confirmed[keys[row]]) for row in kept])
        names = [keys[row] for row in kept]
        front = [names[row] for row in self._feasible_front(final, names)]
        if not self.setup.task.scores:
            return self._export_all(front, confirmed)
        probabilities = front_probabilities(self.setup, self.evaluator, names, final, confirmed)
        return self._export_all(front, confirmed, probabilities)

    def _search_values(self) -> tuple[list[str], Values]:
        """Return the keys of finished trials, and their values by objective."""
        keys = [trial.key for trial in self.store.trials(TrialState.DONE)]
        if not keys:
            failed = self.store.trials(TrialState.FAILED)
            raise EvaluationError(
                f"all {len(failed)} trials failed; the first one: {failed[0].reason}"
                if failed
                else "the run holds no trials"
            )
        archs = self._archs(keys)
        measured = self.evaluator.search_values(archs, self.setup.measured)
        values: Values = {}
        batch = self.setup.net.space.architectures(archs)
        for objective in self.setup.objectives:
            if objective.computed is not None:
                values[objective.name] = np.asarray(objective.computed(batch), np.float64)
            else:
                values[objective.name] = np.array(
                    [_value(measured[key], objective.name) for key in keys]
                )
        return keys, values

    def _contenders(self, keys: list[str], values: Values) -> list[int]:
        low: Values = {}
        if (predicted := self.setup.predicted.get(LATENCY)) is not None:
            archs = self.setup.net.space.architectures(self._archs(keys))
            low[LATENCY] = predicted.interval(archs)[1]
        elif LATENCY in values:
            context = self.evaluator.latency_context
            found = [self.store.find(key, LATENCY, context, "search") for key in keys]
            low[LATENCY] = np.array([noisy_low(m) for m in found])
        rows = contender_rows(values, low, self.setup.objectives, self.setup.constraints)
        if not len(rows):
            raise InfeasibleError(closest_to_feasible(self.setup.constraints, values, keys))
        return [int(row) for row in rows]

    def _confirm(self, keys: list[str]) -> dict[str, Measurement | None]:
        """Time the contenders together, if latency is an objective."""
        if LATENCY not in [objective.name for objective in self.setup.objectives]:
            self.progress.phase("confirm", 1, done=1)
            return dict.fromkeys(keys)
        self.progress.phase("confirm", len(keys) + 1)
        models = self.evaluator.files_of(self._archs(keys))
        self.progress.advance(len(keys))
        confirmed: dict[str, Measurement | None] = {}
        for key, result in self.evaluator.confirm_latencies(models, CONFIRM).items():
            if isinstance(result, Measurement):
                confirmed[key] = result
            else:
                self.progress.note(f"{key} leaves the front: {result}")
        self.progress.advance()
        return confirmed

    def _feasible_front(self, values: Values, keys: Sequence[str]) -> NDArray[np.int64]:
        if not len(keys):
            raise EvaluationError("every contender for the front failed when it was confirmed")
        rows = front_rows(values, self.setup.objectives, self.setup.constraints)
        if not len(rows):
            raise InfeasibleError(closest_to_feasible(self.setup.constraints, values, keys))
        return rows

    def _export_all(
        self,
        keys: Sequence[str],
        latencies: Mapping[str, Measurement | Prediction | None],
        probabilities: Mapping[str, float] = MappingProxyType({}),
    ) -> list[dict[str, Any]]:
        """Export members; candidates have no probability to be on the front."""
        self.progress.phase("export", len(keys))
        if self.setup.task.scores:
            report = self.setup.task.report
            self.evaluator.score_missing(self._archs(keys), report, "report")
        rows = []
        for key in keys:
            try:
                if self.setup.task.scores:
                    rows.append(self._member(key, latencies[key], probabilities.get(key)))
                else:
                    rows.append(self._listed(key, latencies[key]))
            except (VerificationError, EvaluationError) as error:
                self.evaluator.check_device([error, error.__cause__])
                self.progress.note(f"{key} is not shipped: {error}")
            self.progress.advance()
        if not rows:
            raise VerificationError("no member of the front passed its verification")
        first = self.setup.objectives[0].name
        return sorted(rows, key=lambda row: row[first])

    def _member(
        self, key: str, latency: Measurement | Prediction | None, probability: float | None
    ) -> dict[str, Any]:
        """Write and verify one member, score it on the report samples, and return its row."""
        arch, task = self._arch(key), self.setup.task
        exported = self.evaluator.build(arch)
        with staged_folder(self.subnets / key) as folder:
            write_files(folder, self.setup.net, exported)
            if sha256_of(folder / MODEL) != self._timed.get(key, sha256_of(folder / MODEL)):
                raise VerificationError("its model is no longer the one that the kit timed")
            verification = self._verify(folder, exported)
            answers = probe_answers(folder, exported, self.setup.device)
            searched = self.evaluator.scored(arch, folder / MODEL, task.search, "search")
            reported = self.evaluator.scored(arch, folder / MODEL, task.report, "report")
            known = [each for each in (searched, latency, reported) if each is not None]
            card = write_card(
                folder,
                self.setup.net,
                exported,
                [stated(each) for each in known if isinstance(each, Measurement)],
                verification,
                answers,
                [each.stated() for each in known if isinstance(each, Prediction)],
                probability,
            )
            check_probe(folder, card, self.setup.device)
            run_infer(folder)
        metric = task.metric.name
        numbers = {metric: searched, f"{metric}_report": reported, LATENCY: latency}
        return self._row(arch, numbers, probability, card)

    def _listed(self, key: str, latency: Measurement | Prediction | None) -> dict[str, Any]:
        """Write the card of a candidate without a model, and return its row."""
        arch, metric = self._arch(key), self.setup.task.metric.name
        accuracy = predictions(self.setup, [arch])[key][metric]
        known = [each for each in (accuracy, latency) if each is not None]
        with staged_folder(self.subnets / key) as folder:
            card = write_listed_card(
                folder,
                self.setup.net,
                arch,
                [stated(each) for each in known if isinstance(each, Measurement)],
                [each.stated() for each in known if isinstance(each, Prediction)],
            )
        return self._row(arch, {metric: accuracy, LATENCY: latency}, None, card)

    def _row(
        self,
        arch: Architecture,
        numbers: Mapping[str, Number | None],
        probability: float | None,
        card: Mapping[str, Any],
    ) -> dict[str, Any]:
        subnet = f"{self.subnets.name}/{arch.key}"
        weights = self.setup.net.weights
        return row_of(arch, numbers, probability, card["exact"], weights, subnet)

    def _verify(self, folder: Path, exported: Exported) -> dict[str, Any]:
        batch = self.setup.net.space.architectures([exported.arch])
        promised = {name: int(self.setup.net.exact(name, batch)[0]) for name in ("macs", "params")}
        spec = self.setup.net.input_spec(exported.arch)
        samples, _ = next(self.setup.task.search.batches(VERIFIED_SAMPLES, spec))
        return verify_export(folder, exported, promised, samples, self.setup.device)

    def _arch(self, key: str) -> Architecture:
        return self.setup.net.space.architectures([self.store.trial(key).choices])[0]

    def _archs(self, keys: Sequence[str]) -> list[Architecture]:
        return [self._arch(key) for key in keys]


def _value(values: dict[str, float] | EvaluationError, name: str) -> float:
    if isinstance(values, EvaluationError):
        raise values
    return values[name]


def _latency(measurement: Measurement | None) -> float:
    assert measurement is not None
    return measurement.value
