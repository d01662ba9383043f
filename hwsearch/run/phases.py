"""Phases of a run: warm start, search, front."""

from contextlib import closing
from pathlib import Path
from typing import Any

from hwsearch.errors import EvaluationError
from hwsearch.evaluation.evaluator import REUSED, Evaluator
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.run.cluster.scheduler import make_scheduler
from hwsearch.run.config import TRIALS
from hwsearch.run.finish import Finisher
from hwsearch.run.loop import run_search
from hwsearch.run.outcome import KIT, SUBNETS
from hwsearch.run.progress import Progress
from hwsearch.run.search_summary import SearchSummary
from hwsearch.run.settings import Workers
from hwsearch.run.setup import Setup
from hwsearch.run.summarize import summarize_search
from hwsearch.run.warm_start import measure_reused
from hwsearch.trial_store import Store


def search_and_finish(
    folder: Path, setup: Setup, progress: Progress, workers: Workers = None
) -> tuple[list[dict[str, Any]], SearchSummary]:
    """Complete a run; return the rows of the front or of the candidates, and the summary.

    The device is closed at the end.
    """
    with Store(folder / TRIALS) as store, closing(setup.evaluator(store)) as evaluator:
        try:
            optimizer = setup.optimizer()
            for text in (*setup.warnings, *setup.notes, _outlook(evaluator, setup, store)):
                progress.note(text)
            measure_reused(setup, evaluator, optimizer, progress)
            scheduler = make_scheduler(workers, setup, evaluator, progress)
            with closing(scheduler):
                run_search(
                    optimizer,
                    store,
                    scheduler,
                    setup.config.stopping,
                    progress,
                    setup.config.batch,
                )
            finisher = Finisher(setup, evaluator, folder / SUBNETS, progress)
            if LATENCY in setup.predicted:
                rows = finisher.candidates(folder / KIT)
            else:
                rows = finisher.finish()
            return rows, summarize_search(optimizer, store, setup, rows)
        finally:
            setup.device.close()


def _outlook(evaluator: Evaluator, setup: Setup, store: Store) -> str:
    """Return the expected duration and disk usage of the search as text."""
    trials = store.trials()
    spent = sum(trial.state.is_finished or trial.origin == REUSED for trial in trials)
    left = max(0, setup.config.budget - spent)
    text = (
        f"{left} of {setup.config.budget} architectures to evaluate out of "
        f"{setup.net.space.size:.3g}"
    )
    if not left or not setup.measured:
        return text
    try:
        if setup.task.scores:
            largest = int(setup.net.exact("bytes", setup.net.space.largest())[0])
            text += f"; each exported subnet takes up to {2 * largest / 1e6:.1f} MB"
        seconds = evaluator.seconds_each(setup.measured)
    except EvaluationError:
        return text
    return f"{text}; at most about {max(1, round(left * seconds / 60))} min"
