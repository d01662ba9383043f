"""Writing of a run: search, resumption, and confirmation of its candidates by a kit."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from hwsearch.errors import DataError, DeviceLostError, EvaluationError, HwsearchError, InputError
from hwsearch.evaluation.evaluator import REUSED, Evaluator
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.run.candidates import read_timings, store_timings
from hwsearch.run.cluster.scheduler import cluster_device, make_scheduler
from hwsearch.run.config import FILE, PICTURE, REPORT, TRIALS, recorded_place, write_config
from hwsearch.run.finish import Finisher
from hwsearch.run.folder import RunFolder, refuse_file
from hwsearch.run.lock import HOLDER, LOCK, locked, network_risk
from hwsearch.run.loop import run_search
from hwsearch.run.outcome import CANDIDATES, FRONT, KIT, remove_checksums, write_outcome
from hwsearch.run.progress import Progress
from hwsearch.run.settings import SearchSettings, Workers
from hwsearch.run.setup import Setup, check_same, prepare
from hwsearch.run.summarize import replay_optimizer, summarize_search
from hwsearch.run.value_sources import registry as sources
from hwsearch.run.warm_start import measure_reused
from hwsearch.supernets.supernet import Supernet
from hwsearch.trial_store import Store

R = TypeVar("R", bound=RunFolder)


def start_run(
    kind: type[R],
    settings: SearchSettings,
    net: Supernet | None,
    progress: Progress,
    *,
    budget_of_reuse: bool = False,
) -> R:
    """Search as `hwsearch.search` does; ``budget_of_reuse``: for as many values as are reused."""
    config, workers = settings.config.with_device_of_choices(), settings.workers
    if settings.out is not None:
        _check_output(Path(settings.out))
    device = cluster_device(workers, config.device)
    setup = sources.with_sources(prepare(config, net, device, progress=progress))
    n_reused = sum(source.n_reused for source in setup.sources)
    if budget_of_reuse and n_reused:
        setup = replace(setup, config=replace(config, budget=n_reused))
    name = f"{setup.net.card.name}-{setup.device.slug}"
    folder = Path(settings.out) if settings.out is not None else Path("runs") / name
    _check_output(folder)
    setup.read(progress)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        _check_output(folder)
        # Written first: a folder with this file alone can be resumed.
        place = recorded_place(folder, setup.config)
        write_config(folder, setup.config, setup.recorded() | place)
        for source in setup.sources:
            source.copy_to(folder)
        return _complete(kind(folder), setup, progress, workers)


def resume_run(
    kind: type[R],
    folder: Path,
    limits: Mapping[str, float | None],
    net: Supernet | None,
    workers: Workers,
    progress: Progress,
) -> R:
    """Resume as `hwsearch.resume` does; ``workers`` may differ from those of earlier processes."""
    kind(folder)  # before a lock is written into what is no run
    with locked(folder):
        run = kind(folder)
        device = cluster_device(workers, run.config.device)
        config, recorded = run.config.with_limits(limits), run.recorded
        setup = prepare(config, net, device, run.directories, recorded, progress)
        setup.read(progress)
        check_same(folder, run.recorded, setup.recorded())
        if setup.config == run.config and run.finished:
            if not all((folder / name).is_file() for name in (REPORT, PICTURE)):
                run._draw(setup)  # it was stopped between its front and its report
            return run
        setup = sources.with_recorded_sources(setup, folder, run.recorded)
        # Opened once before anything is changed: a damaged store is refused here.
        Store(folder / TRIALS).close()
        if setup.config != run.config:
            for name in (FRONT, CANDIDATES, KIT, REPORT):
                (folder / name).unlink(missing_ok=True)
            write_config(folder, setup.config, run.recorded)
        return _complete(kind(folder), setup, progress, workers)


def confirm_run(
    kind: type[R], folder: Path, timings: Path, net: Supernet | None, progress: Progress
) -> R:
    """Turn candidates into a front as `hwsearch.confirm` does."""
    run = kind(folder)
    with locked(folder):
        manifest, facts, context = read_timings(folder / KIT, timings)
        setup = sources.with_recorded_predictor(run.setup(net), folder, run.recorded)
        setup.read(progress)
        check_same(folder, run.recorded, setup.recorded())
        remove_checksums(folder)
        with (
            Store(folder / TRIALS) as store,
            closing(setup.evaluator(store)) as evaluator,
            closing(setup.device),
        ):
            finisher = Finisher(setup, evaluator, folder, progress)
            for key, reason in facts.failed.items():
                progress.note(f"{key} leaves the candidates: {reason}")
            measured = store_timings(store, facts, context, repr(str(timings)))
            rows = finisher.confirm(measured, manifest)
            summary = summarize_search(replay_optimizer(setup, store), store, setup, rows)
        write_outcome(folder, rows, setup, summary)
        run._draw(setup)
    return run


def _complete(run: R, setup: Setup, progress: Progress, workers: Workers) -> R:
    """Search, write the outcome and draw it; errors say how to go on."""
    if risk := network_risk(run.folder):
        progress.note(risk)
    try:
        remove_checksums(run.folder)
        _search_and_finish(run.folder, setup, progress, workers)
        run._draw(setup)
    except KeyboardInterrupt as stop:
        # Only here is there a run to resume.
        raise KeyboardInterrupt(f"go on with: hwsearch resume {run.folder}") from stop
    except (OSError, DataError, DeviceLostError) as error:
        kind = HwsearchError if isinstance(error, OSError) else type(error)
        raise kind(
            f"{error}. What was measured is kept; once the cause is gone, go on with: "
            f"hwsearch resume {run.folder}"
        ) from error
    return run


def _search_and_finish(folder: Path, setup: Setup, progress: Progress, workers: Workers) -> None:
    """Search, and write the front or the candidates; the device is closed at the end."""
    with (
        Store(folder / TRIALS) as store,
        closing(setup.evaluator(store)) as evaluator,
        closing(setup.device),
    ):
        optimizer = setup.optimizer()
        for text in (*setup.warnings, *setup.notes, _outlook(evaluator, setup, store)):
            progress.note(text)
        measure_reused(setup, evaluator, optimizer, progress)
        with closing(make_scheduler(workers, setup, evaluator, progress)) as scheduler:
            stopping, batch = setup.config.stopping, setup.config.batch
            timings = evaluator.timings
            run_search(optimizer, store, scheduler, stopping, progress, batch, timings)
        finisher = Finisher(setup, evaluator, folder, progress)
        rows = finisher.candidates() if LATENCY in setup.predicted else finisher.finish()
        summary = summarize_search(optimizer, store, setup, rows)
    write_outcome(folder, rows, setup, summary)


def _outlook(evaluator: Evaluator, setup: Setup, store: Store) -> str:
    """Return the expected duration and disk usage of the search as text."""
    budget, trials = setup.config.budget, store.trials()
    spent = sum(trial.state.is_finished or trial.origin == REUSED for trial in trials)
    left = max(0, budget - spent)
    text = f"{left} of {budget} architectures to evaluate out of {setup.net.space.size:.3g}"
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


def _check_output(folder: Path) -> None:
    """Refuse a folder that has files, or whose path is or contains a file."""
    refuse_file("output", folder)
    names = {each.name for each in folder.iterdir()} if folder.exists() else set()
    # A killed process leaves its lock, and the file that it was writing.
    staged = (f".{FILE}.", f".{HOLDER}.")
    entries = sorted(n for n in names - {LOCK, HOLDER} if not n.startswith(staged))
    if FILE in entries:
        raise InputError(
            f"output {str(folder)!r} holds another run; go on with it by "
            f"'hwsearch resume {folder}', or give another folder"
        )
    if entries:
        raise InputError(
            f"output {str(folder)!r} holds {len(entries)} other files ({entries[0]}); "
            "give a folder that is empty or does not exist yet"
        )
