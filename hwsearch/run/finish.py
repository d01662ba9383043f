"""From evaluated trials to a front: confirmation, export, verification, report scores."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.constraints import closest_to_feasible
from hwsearch.devices import MeasureSettings
from hwsearch.errors import DeviceError, EvaluationError, InfeasibleError, VerificationError
from hwsearch.evaluation.attempt import raised
from hwsearch.evaluation.evaluator import Evaluator
from hwsearch.evaluation.measurements import LATENCY, THROUGHPUT, noisy_best
from hwsearch.files import sha256_of, staged_folder
from hwsearch.kit.manifest import Manifest
from hwsearch.models.artifact import MODEL, write_card, write_files, write_listed_card
from hwsearch.run.candidates import PREDICTED, Prediction, predictions, write_second_kit
from hwsearch.run.front import contender_rows, front_rows
from hwsearch.run.front_probability import front_probabilities
from hwsearch.run.outcome import KIT, SUBNETS
from hwsearch.run.progress import Progress
from hwsearch.run.refine import Scores, refine
from hwsearch.run.setup import TIMING_COLUMNS, Setup
from hwsearch.space import Architecture, Architectures
from hwsearch.trials import Measurement, TrialState
from hwsearch.verify.recipe import check_recipe
from hwsearch.verify.subnet import check_probe, probe_answers, run_infer, verify_export

CONFIRM = MeasureSettings(half_width=0.01, seconds_per_model=2.5)
VERIFIED_SAMPLES = 256
Values = dict[str, NDArray[np.float64]]
Number = Measurement | Prediction
Timed = Mapping[str, Mapping[str, Measurement]]  # key -> quantity -> what was confirmed
_ON_CARDS = ("quantity", "purpose", "value", "low", "high", "count", "context", "details")


class Finisher:
    """Computes the front of a run from its trials."""

    def __init__(
        self, setup: Setup, evaluator: Evaluator, folder: Path, progress: Progress
    ) -> None:
        self.setup, self.evaluator, self.progress = setup, evaluator, progress
        self.store, self.space = evaluator.store, setup.net.space
        self.folder = folder
        self._refined: Scores = {}  # of models with refined weights
        self._timed: dict[str, str] = {}  # SHA-256 of the model of every key that a kit timed

    def finish(self) -> list[dict[str, Any]]:
        """Confirm, export and score the front; return a row per member, by the first objective.

        Raise InfeasibleError, which names the closest, if no trial satisfies the constraints.
        """
        archs, values = self._search_values()
        contenders = archs[self._contenders(archs, values)]
        values = self._refine(contenders, archs, values)
        return self._front(archs, values, self._confirm(contenders))

    def confirm(self, timings: Mapping[str, Measurement], kit: Manifest) -> list[dict[str, Any]]:
        """Return the rows of the front of candidates that a kit timed; see `finish`."""
        self._timed = {model.key: model.shipped for model in kit.models}
        timed = {key: {LATENCY: latency} for key, latency in timings.items()}
        archs, values = self._search_values()
        contenders = archs[np.flatnonzero([key in timed for key in archs.ids])]
        return self._front(archs, self._refine(contenders, archs, values), timed)

    def candidates(self) -> list[dict[str, Any]]:
        """Export the non-dominated trials by predicted latencies, and write a kit that times them.

        The kit also has the trials that may be non-dominated within the intervals of predictions.
        Rows and errors are as for `finish`.
        """
        archs, values = self._search_values()
        contenders = self._contenders(archs, values)
        values = self._refine(archs[contenders], archs, values)
        best = self._feasible_front(archs, values)
        predicted = predictions(self.setup, LATENCY, archs[best])
        rows = self._export_all(archs[best], {key: {LATENCY: p} for key, p in predicted.items()})
        timed = archs[[*best, *(row for row in contenders if row not in best)]]
        self.progress.phase("kit", len(timed))
        kit = self.folder / KIT
        write_second_kit(self.setup, self.evaluator, timed, kit, CONFIRM, self.progress)
        return rows

    def _refine(self, contenders: Architectures, archs: Architectures, values: Values) -> Values:
        """Refine the weights of contenders; return the values of all with what that improves."""
        self._refined = refine(self.setup, self.evaluator, contenders, self.progress)
        better = {name: array.copy() for name, array in values.items()}
        for row, key in enumerate(archs.ids):
            for name, score in self._refined.get(key, {}).items():
                if name in better:
                    better[name][row] = score.value
        return better

    def _front(
        self, archs: Architectures, values: Values, confirmed: Timed
    ) -> list[dict[str, Any]]:
        """Export the front of the confirmed ones of architectures, by confirmed values."""
        kept = [row for row, key in enumerate(archs.ids) if key in confirmed]
        if not kept:
            raise EvaluationError("every contender for the front failed when it was confirmed")
        archs, final = archs[kept], {name: array[kept] for name, array in values.items()}
        names = confirmed[archs.ids[0]]
        timed = {name: [confirmed[key][name] for key in archs.ids] for name in names}
        final |= {n: np.array([m.value for m in timed[n]]) for n in timed if n in final}
        front = archs[self._feasible_front(archs, final)]
        if not self.setup.task.scores:
            return self._export_all(front, confirmed)
        probabilities = front_probabilities(
            self.setup, self.evaluator, archs.ids, final, timed, self._refined
        )
        return self._export_all(front, confirmed, probabilities)

    def _search_values(self) -> tuple[Architectures, Values]:
        """Return the architectures of finished trials, and their values by objective."""
        trials = self.store.trials(TrialState.DONE)
        if not trials:
            failed = self.store.trials(TrialState.FAILED)
            raise EvaluationError(
                f"all {len(failed)} trials failed; the first one: {failed[0].reason}"
                if failed
                else "the run holds no trials"
            )
        archs = self.space.architectures([trial.choices for trial in trials])
        found = self.evaluator.search_values(list(archs), self.setup.measured)
        measured = [raised(found[key]) for key in archs.ids]
        values: Values = {}
        for objective in self.setup.objectives:
            if objective.computed is not None:
                values[objective.name] = np.asarray(objective.computed(archs), np.float64)
            elif objective.name in self._timed_quantities:
                latest = self.evaluator.latest(objective.name)
                values[objective.name] = np.array([latest[key].value for key in archs.ids])
            else:
                values[objective.name] = np.array([each[objective.name] for each in measured])
        return archs, values

    def _contenders(self, archs: Architectures, values: Values) -> NDArray[np.int64]:
        low: Values = {}
        if (predicted := self.setup.predicted.get(LATENCY)) is not None:
            low[LATENCY] = predicted.interval(archs)[1]
        for name in self._timed_quantities:
            latest = self.evaluator.latest(name)
            low[name] = np.array([noisy_best(latest[key]) for key in archs.ids])
        rows = contender_rows(values, low, self.setup.objectives, self.setup.constraints)
        return self._feasible(rows, archs, values)

    def _feasible_front(self, archs: Architectures, values: Values) -> NDArray[np.int64]:
        rows = front_rows(values, self.setup.objectives, self.setup.constraints)
        return self._feasible(rows, archs, values)

    def _feasible(
        self, rows: NDArray[np.int64], archs: Architectures, values: Values
    ) -> NDArray[np.int64]:
        """Return the rows; refuse that there are none."""
        if not len(rows):
            raise InfeasibleError(closest_to_feasible(self.setup.constraints, values, archs.ids))
        return rows

    @property
    def _timed_quantities(self) -> list[str]:
        """Return the names of the objectives that the device measures, latency first."""
        return [name for name in (LATENCY, THROUGHPUT) if name in self.setup.measured]

    def _confirm(self, archs: Architectures) -> dict[str, dict[str, Measurement]]:
        """Time the contenders together, if the device measures an objective."""
        confirmed: dict[str, dict[str, Measurement]] = {key: {} for key in archs.ids}
        names = self._timed_quantities
        if not names:
            self.progress.phase("confirm", 1, done=1)
            return confirmed
        self.progress.phase("confirm", len(archs) + len(names))
        models = self.evaluator.files_of(list(archs))
        self.progress.advance(len(archs))
        for name in names:
            for key, result in self._confirmed(name, models).items():
                if isinstance(result, Measurement):
                    confirmed[key][name] = result
                elif confirmed.pop(key, None) is not None:
                    self.progress.note(f"{key} leaves the front: {result}")
            self.progress.advance()
        return confirmed

    def _confirmed(
        self, name: str, models: Mapping[str, Path]
    ) -> dict[str, Measurement | DeviceError]:
        if name == LATENCY:
            return self.evaluator.confirm_latencies(models, CONFIRM)
        return self.evaluator.confirm_throughputs(models, CONFIRM)

    def _export_all(
        self,
        archs: Architectures,
        timed: Mapping[str, Mapping[str, Number]],
        probabilities: Mapping[str, float] = MappingProxyType({}),
    ) -> list[dict[str, Any]]:
        """Export members; candidates have no probability to be on the front."""
        self.progress.phase("export", len(archs))
        if self.setup.task.scores:
            self.evaluator.score_missing(list(archs), self.setup.task.report, "report")
        rows = []
        for arch in archs:
            try:
                if self.setup.task.scores:
                    probability = probabilities.get(arch.key)
                    rows.append(self._member(arch, timed[arch.key], probability))
                else:
                    rows.append(self._listed(arch, timed[arch.key]))
            except (VerificationError, EvaluationError) as error:
                self.evaluator.check_device([error, error.__cause__])
                self.progress.note(f"{arch.key} is not shipped: {error}")
            self.progress.advance()
        if not rows:
            raise VerificationError("no member of the front passed its verification")
        first = self.setup.objectives[0].name
        return sorted(rows, key=lambda row: row[first])

    def _member(
        self, arch: Architecture, timed: Mapping[str, Number], probability: float | None
    ) -> dict[str, Any]:
        """Write and verify one member, score it on the report samples, and return its row."""
        task, net, device = self.setup.task, self.setup.net, self.setup.device
        exported, batch = self.evaluator.models.exported(arch), self.space.architectures([arch])
        with staged_folder(self.folder / SUBNETS / arch.key) as folder:
            write_files(folder, net, exported)
            sha256 = sha256_of(folder / MODEL)
            if sha256 != self._timed.get(arch.key, sha256):
                raise VerificationError("its model is no longer the one that the kit timed")
            promised = {name: int(net.exact(name, batch)[0]) for name in ("macs", "params")}
            samples, _ = next(task.search.batches(VERIFIED_SAMPLES, net.input_spec(arch)))
            verification = verify_export(folder, exported, promised, samples, device)
            probe = probe_answers(folder, exported, device)
            searched = self._refined.get(arch.key) or self.evaluator.scores(
                arch, folder / MODEL, task.search, "search"
            )
            reported = self.evaluator.scores(arch, folder / MODEL, task.report, "report")
            measured, predicted = card_entries(
                (*searched.values(), *timed.values(), *reported.values())
            )
            card = write_card(
                folder, net, exported, measured, verification, probe, predicted, probability
            )
            check_recipe(exported.model, card.get("blocks", {}))
            check_probe(folder, card, device)
            run_infer(folder)
        numbers: dict[str, Number] = {}
        for name, score in searched.items():
            numbers[name] = score
            numbers |= {f"{name}_report": reported[name]} if name in reported else {}
        numbers |= timed
        return row_of(arch, numbers, probability, card["exact"], net.weights)

    def _listed(self, arch: Architecture, timed: Mapping[str, Number]) -> dict[str, Any]:
        """Write the card of a candidate without a model, and return its row."""
        metric = self.setup.task.metric.name
        accuracy = predictions(self.setup, metric, self.space.architectures([arch]))[arch.key]
        entries = card_entries((accuracy, *timed.values()))
        with staged_folder(self.folder / SUBNETS / arch.key) as folder:
            card = write_listed_card(folder, self.setup.net, arch, *entries)
        numbers = {metric: accuracy, **timed}
        return row_of(arch, numbers, None, card["exact"], self.setup.net.weights)


def card_entries(
    numbers: Iterable[Number],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the measurements and the predictions among numbers as entries of a card."""
    known = list(numbers)
    measured = [
        {name: getattr(each, name) for name in _ON_CARDS}
        for each in known
        if isinstance(each, Measurement)
    ]
    return measured, [each.stated() for each in known if isinstance(each, Prediction)]


def row_of(
    arch: Architecture,
    numbers: Mapping[str, Number],
    probability: float | None,
    exact: Mapping[str, int],
    weights: str,
) -> dict[str, Any]:
    """Return the table row of a member, with its numbers by quantity."""
    row: dict[str, Any] = {"key": arch.key}
    for name, number in numbers.items():
        row |= {name: number.value, f"{name}_low": number.low, f"{name}_high": number.high}
        if isinstance(number, Prediction):
            row[f"{name}_source"] = PREDICTED
        elif name == LATENCY:
            row |= {each: number.details.get(each) for each in TIMING_COLUMNS}
        elif name == THROUGHPUT:
            row["best_batch"] = number.details["best_batch"]
    row |= {} if probability is None else {"probability": probability}
    # Every choice, in the order of the space; one that is inactive here has no value.
    choices = {name: arch.mapping.get(name) for name in arch.space.names}
    subnet = f"{SUBNETS}/{arch.key}"
    return row | dict(exact) | {"weights": weights, "subnet": subnet} | choices
