"""Refinement of the weights of contenders for the front, where their network can do that.

A network may refine the weights of one subnet in seconds, such as by sequential repair: too slow
for every trial, and worth it for what is shipped. What does not score better on the search samples
keeps its weights.
"""

from typing import Final

from hwsearch.errors import EvaluationError
from hwsearch.evaluation.attempt import raised
from hwsearch.evaluation.evaluator import Evaluator
from hwsearch.run.progress import Progress
from hwsearch.run.setup import Setup
from hwsearch.space import Architecture, Architectures
from hwsearch.trials import Measurement

Scores = dict[str, dict[str, Measurement]]  # key -> metric -> score
PURPOSE: Final = "confirm"  # of scores of refined models, kept or not


def refine(setup: Setup, evaluator: Evaluator, archs: Architectures, progress: Progress) -> Scores:
    """Refine the models of architectures where that improves them.

    The task's metric decides, on the search samples. Return the scores of those that do; from then
    on the evaluator builds their refined models. Stored scores decide again as they did.
    """
    if not (setup.net.refines and setup.task.scores and setup.task.calibration is not None):
        return {}
    metric = setup.task.metric
    if metric.name not in setup.measured:
        return {}
    progress.phase("refine", len(archs))
    better: Scores = {}
    for arch in archs:
        before = evaluator.remembered(arch.key, metric.name)
        try:
            after = _scores(evaluator, arch)
        except EvaluationError as error:
            progress.note(f"{arch.key} keeps its weights: refined ones fail: {error}")
            after = {}
        gain = after[metric.name].value - before.value if after and before is not None else 0.0
        if gain > 0 if metric.direction == "max" else gain < 0:
            better[arch.key] = after
        else:
            evaluator.models.refine(arch, refined=False)
        progress.advance()
    progress.note(f"{len(better)} of {len(archs)} contenders are better with refined weights")
    return better


def _scores(evaluator: Evaluator, arch: Architecture) -> dict[str, Measurement]:
    """Return the scores of an architecture's refined model by metric."""
    evaluator.models.refine(arch)
    samples = evaluator.task.search
    evaluator.score_missing([arch], samples, PURPOSE)
    # Stored by now, unless the model fails: then it is built again for the error.
    path = raised(evaluator.models.get([arch])[arch]).path
    return evaluator.scores(arch, path, samples, PURPOSE)
