"""A run: its folder, and the search that fills it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hwsearch.accuracy.task import NO_DATA
from hwsearch.errors import DataError, DeviceLostError, HwsearchError, InputError
from hwsearch.files import MAX_BYTES, read_bounded
from hwsearch.objectives import Objective
from hwsearch.restriction import one_or_several
from hwsearch.run.checksums import remove_checksums
from hwsearch.run.cluster.workers import Workers, check_workers, cluster_device
from hwsearch.run.config import REPORT, TRIALS, RunConfig, read_config, write_config
from hwsearch.run.exported import (
    check_exported,
    export_subnets,
    load_subnet,
    verify_run,
    with_images,
)
from hwsearch.run.front import select_keys
from hwsearch.run.front_probability import constraint_probabilities
from hwsearch.run.lock import locked, network_risk
from hwsearch.run.outcome import (
    CANDIDATES,
    FRONT,
    KIT,
    SUBNETS,
    SUMMARY,
    read_members,
    write_outcome,
)
from hwsearch.run.phases import search_and_finish
from hwsearch.run.progress import Progress, Silent
from hwsearch.run.search_summary import SearchSummary
from hwsearch.run.setup import (
    TRIAL_COLUMNS,
    Setup,
    check_output,
    check_same,
    prepare,
)
from hwsearch.run.value_sources.registry import with_recorded_sources, with_sources
from hwsearch.supernets.base import Supernet, is_random
from hwsearch.trials import Measurement
from hwsearch.trials_sqlite import SqliteStore

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure
    from torch import nn


def search(
    net: Supernet | str = "cifar10-resnet",
    *,
    device: str = "ort-cpu:threads=1",
    data: str = "bundled",
    objectives: Sequence[str] | None = None,
    constraints: Sequence[str] | None = None,
    budget: int | None = None,
    tactic: str = "hwsearch",
    seed: int = 0,
    batch: int | None = None,
    minutes: float | None = None,
    stop_gain: float | None = None,
    out: str | Path | None = None,
    checkpoint: str | None = None,
    freeze: Sequence[str] | None = None,
    only: Sequence[str] | None = None,
    prior: str = "on",
    warm_start: str | Path | None = None,
    workers: str | int | None = None,
    progress: Progress | None = None,
) -> "Run":
    """Search a supernet for one device and export the confirmed front.

    Args:
        net: A loaded supernet, or the name of one.
        device: Where latency is measured.
        data: What accuracy is measured on; see `hwsearch.load_task`. ``"none"`` predicts it.
        objectives: Names; by default the task's metric and ``latency``.
        constraints: Such as ``"latency <= 12"``.
        budget: Architectures to evaluate, reused ones among them; by default 40, or as many as
            are reused.
        tactic: A registered name, such as ``"hwsearch"`` or ``"random"``; see `Optimizer`.
        seed: Decides every random draw.
        batch: Architectures proposed at a time; by default as many as the tactic proposes.
        minutes: Of wall time, after which the search proposes nothing more.
        stop_gain: Percent: the search ends when its next 50 evaluations are expected to add less
            than this share of the hypervolume.
        out: A folder that does not exist yet or is empty; ``runs/SUPERNET-DEVICE`` by default.
        checkpoint: For a supernet given by name.
        freeze: Choices left one option, such as ``"stage1.*=max"``; see `Supernet.restrict`.
        only: Choices left some options, such as ``"resolution in 160,192,224"``.
        prior: ``"off"`` does without the accuracy predictor that ships for the supernet.
        warm_start: An earlier run, whose accuracies are not measured again, or a CSV, whose
            accuracies are predicted from.
        workers: ``"ray"`` evaluates on the nodes of a Ray cluster instead of in this process;
            see docs/cluster.md. No setting of the run: it may be another when it is resumed.
        progress: Told of phases and steps.

    Returns:
        The finished run.

    Raises:
        InputError: Something given cannot be used; nothing has been written.
        InfeasibleError: Nothing satisfies the constraints; the run can be looked at all the same.
    """
    loaded = net if isinstance(net, Supernet) else None
    config = RunConfig(
        supernet=net.name if isinstance(net, Supernet) else net,
        checkpoint=net.checkpoint if isinstance(net, Supernet) else checkpoint,
        freeze=(*(loaded.freeze if loaded else ()), *one_or_several(freeze)),
        only=(*(loaded.only if loaded else ()), *one_or_several(only)),
        device=device,
        data=data,
        objectives=one_or_several(objectives),
        constraints=one_or_several(constraints),
        tactic=tactic,
        seed=seed,
        batch=batch,
        minutes=minutes,
        stop_gain=stop_gain,
        prior=prior,
        warm_start=None if warm_start is None else str(warm_start),
    ).with_budget(budget)
    if out is not None:
        check_output(Path(out))
    device_there = cluster_device(workers, config.device)
    setup = with_sources(prepare(config, loaded, device_there))
    if budget is None:
        n_reused = sum(source.n_reused for source in setup.sources)
        setup = replace(setup, config=config.with_budget(n_reused or None))
    folder = Path(out) if out is not None else _default_folder(setup)
    check_output(folder)
    progress = progress or Silent()
    setup.read(progress)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        check_output(folder)
        # First of all: a folder with this file can be gone on with, whatever else it lacks.
        write_config(folder, setup.config, setup.recorded())
        for source in setup.sources:
            source.copy_to(folder)
        return Run(folder)._carry_on(setup, progress, workers)


def resume(
    folder: str | Path,
    *,
    budget: int | None = None,
    minutes: float | None = None,
    stop_gain: float | None = None,
    net: Supernet | None = None,
    workers: str | int | None = None,
    progress: Progress | None = None,
) -> "Run":
    """Go on with a run that was stopped, or give a finished one a larger budget.

    Args:
        folder: Of the run.
        budget: A new budget in all; None keeps the run's.
        minutes: New minutes in all, those spent on measuring before among them; likewise.
        stop_gain: Another one; likewise.
        net: For a supernet that cannot be loaded by its recorded name.
        workers: As for `search`; independent of the earlier processes'.
        progress: Told of phases and steps.

    Raises:
        InputError: The folder is no run, or the supernet, data or device are no longer the same.
    """
    run = Run(folder)
    check_workers(workers)
    with locked(run.folder):
        limits = (budget, minutes, stop_gain)
        return _resumed(Run(folder), limits, net, workers, progress or Silent())


def _resumed(
    run: "Run",
    limits: tuple[int | None, float | None, float | None],
    net: Supernet | None,
    workers: Workers,
    progress: Progress,
) -> "Run":
    device_there = cluster_device(workers, run.config.device)
    setup = prepare(run.config.with_limits(*limits), net, device_there)
    setup.read(progress)
    check_same(run.folder, run.recorded, setup.recorded())
    if setup.config == run.config and run.finished:
        if not (run.folder / REPORT).is_file():
            run.report()  # it was stopped between its front and its report
        return run
    setup = with_recorded_sources(setup, run.folder, run.recorded)
    # Opened once before anything is changed: a damaged store is refused here.
    SqliteStore(run.folder / TRIALS).close()
    if setup.config != run.config:
        for name in (FRONT, CANDIDATES, KIT, REPORT):
            (run.folder / name).unlink(missing_ok=True)
        write_config(run.folder, setup.config, run.recorded)
    return run._carry_on(setup, progress, workers)


class Run:
    """A run folder: its settings, trials and front.

    Args:
        folder: As `search` left it, finished or not.

    Raises:
        InputError: The folder is no run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.config, self.recorded = read_config(self.folder)
        written = (SUBNETS, FRONT, CANDIDATES)
        begun = next((name for name in written if (self.folder / name).exists()), None)
        if begun and not (self.folder / TRIALS).is_file():
            raise InputError(f"run {str(folder)!r} is damaged: it has {begun}, but no {TRIALS}")

    def __repr__(self) -> str:
        state = "finished" if self.finished else "not finished"
        return f"Run({str(self.folder)!r}, {self.title}, {state})"

    @property
    def finished(self) -> bool:
        """Whether the front has been confirmed and exported, or candidates await what follows."""
        awaited = (CANDIDATES, KIT) if self.config.device.startswith("kit:") else (CANDIDATES,)
        return self.confirmed or all((self.folder / name).is_file() for name in awaited)

    @property
    def confirmed(self) -> bool:
        """Whether it has a front: a search by a table, or without data, ends with candidates."""
        return (self.folder / FRONT).is_file()

    @property
    def untrained(self) -> bool:
        """Whether the weights are random, so that its accuracies mean nothing."""
        return is_random(self.config.checkpoint)

    @property
    def front(self) -> "pd.DataFrame":
        """One row per subnet of the front: measured numbers with their intervals.

        Raises:
            InputError: The run is not finished, or has candidates that nobody has timed.
        """
        if self.finished and not self.confirmed and self.config.data == NO_DATA:
            raise InputError(
                f"run {str(self.folder)!r} has candidates and no front: their accuracies are "
                f"predicted; with images: {self.with_images}"
            )
        if self.finished and not self.confirmed:
            raise InputError(
                f"run {str(self.folder)!r} has candidates and no front: their latencies are "
                f"predicted; run {self.folder / KIT} on the device, then "
                f"'hwsearch confirm {self.folder} timings.json'"
            )
        return self.members

    @property
    def members(self) -> "pd.DataFrame":
        """The front, or else the candidates: ``NAME_source`` says which NAME is ``predicted``.

        Raises:
            InputError: The run is not finished, or the file is damaged.
        """
        if not self.finished:
            raise InputError(
                f"run {str(self.folder)!r} has no front yet; finish it by "
                f"'hwsearch resume {self.folder}'"
            )
        name = FRONT if self.confirmed else CANDIDATES
        from hwsearch.report.notebook import Front

        names = [each.name for each in self.objectives]
        return Front(read_members(self.folder / name, names))

    @property
    def summary(self) -> SearchSummary | None:
        """What the search was worth; None for a run that the first version finished.

        Raises:
            InputError: It is damaged.
        """
        path = self.folder / SUMMARY
        if not (self.finished and path.is_file()):
            return None
        try:
            text = read_bounded(path, MAX_BYTES).decode()
        except (OSError, ValueError) as error:
            raise InputError(f"{str(path)!r} cannot be read: {error}; delete it") from error
        return SearchSummary.from_json(text, repr(str(path)))

    @property
    def trials(self) -> "pd.DataFrame":
        """One row per trial: its state and what the search measured of it."""
        import pandas as pd

        with SqliteStore(self.folder / TRIALS) as store:
            trials = store.trials()
            measured: dict[str, dict[str, float]] = {trial.key: {} for trial in trials}
            for m in store.measurements(purpose="search"):
                measured[m.key][m.quantity] = m.value
        rows = [
            {
                **{name: getattr(trial, name) for name in TRIAL_COLUMNS},
                "state": str(trial.state),
                **measured[trial.key],
                **trial.choices,
            }
            for trial in trials
        ]
        return pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(TRIAL_COLUMNS))

    def measurements(self) -> list[Measurement]:
        """Every measurement in the order in which they were made."""
        with SqliteStore(self.folder / TRIALS) as store:
            return store.measurements()

    def setup(self, net: Supernet | None = None) -> Setup:
        """Load the supernet, device and data of the run."""
        return prepare(self.config, net)

    def select(self, select: str = "all") -> list[str]:
        """Return keys: of ``"all"``, of the ``"knee"``, one key, or by ``"latency <= 12"``.

        ``"latency <= 12 @ 95%"`` takes one: the best by the first objective of those whose true
        latency is 12 ms at most with a probability of 95%; see
        `hwsearch.run.front_probability.constraint_probabilities`.

        Raises:
            InputError: Nothing is selected.
        """
        members = self.members
        return select_keys(
            members,
            self.objectives,
            select,
            lambda bound: constraint_probabilities(
                bound, members, self.measurements(), self.config.seed
            ),
        )

    def export(self, select: str = "all", to: str | Path | None = None) -> list[Path]:
        """Return the folders of selected subnets, each verified again, copied where asked.

        Args:
            select: See `select`.
            to: A folder that receives one folder per subnet; None leaves them where they are.

        Raises:
            InputError: Nothing is selected, or the target holds such a folder already.
            VerificationError: A file is damaged.
        """
        check_exported(self.folder, self.config)
        folders = [self.folder / SUBNETS / key for key in self.select(select)]
        return export_subnets(folders, self.config.device, Path(to) if to else None)

    def verify(self) -> dict[str, str | None]:
        """Check every exported subnet from its files alone, and the run's files by their digests.

        Returns:
            Key -> what is wrong with it, or None; and for every other file that is damaged, its
            name -> what is wrong with it.
        """
        check_exported(self.folder, self.config)
        return verify_run(self.folder, self.config.device, lambda: self.select("all"))

    def subnet(self, key: str) -> "nn.Module":
        """Return an exported subnet as a network, with its weights and batch statistics.

        Raises:
            InputError: The key is not on the front.
        """
        check_exported(self.folder, self.config)
        return load_subnet(self.folder / SUBNETS / self.select(key)[0], self.setup().net)

    def report(self, to: str | Path | None = None) -> Path:
        """Write the run as one HTML page that opens offline, with pictures beside it.

        Args:
            to: The file; by default ``report.html`` in the run's folder.

        Returns:
            The page.

        Raises:
            InputError: The run cannot be read, or the file is a folder.
        """
        from hwsearch.report.write import write_report

        return write_report([self], Path(to) if to else None)[0]

    def plot(self, across: str | None = None) -> "Figure":
        """Return the front, every trial behind it, as a plotly figure.

        Args:
            across: The objective from left to right; by default latency, or the second one.

        Raises:
            InputError: There is no such objective, or the run cannot be read.
        """
        from hwsearch.report.front_figure import plotted

        return plotted(self, across)

    def _repr_html_(self) -> str:
        from hwsearch.report.notebook import run_html

        return run_html(self)

    @property
    def objectives(self) -> list[Objective]:
        """The objectives of the run, without the functions that compute exact ones.

        Raises:
            InputError: Its settings record none.
        """
        recorded = self.recorded.get("objectives")
        if not recorded:
            raise InputError(
                f"run {str(self.folder)!r} is damaged: its settings record no objectives"
            )
        return [Objective(o["name"], o["direction"], unit=o["unit"]) for o in recorded]

    @property
    def with_images(self) -> str:
        """The command that makes a front of what a search without data found."""
        return with_images(self.folder, self.config)

    @property
    def title(self) -> str:
        """What was searched, and for which device."""
        title = f"{self.config.supernet} on {self.config.device}"
        return f"{title}, random weights ({self.config.checkpoint})" if self.untrained else title

    def _carry_on(self, setup: Setup, progress: Progress, workers: Workers) -> "Run":
        """Do whatever is still to be done."""
        from hwsearch.report.write import write_page

        self.config = setup.config
        if risk := network_risk(self.folder):
            progress.note(risk)
        try:
            remove_checksums(self.folder)
            rows, summary = search_and_finish(self.folder, setup, progress, workers)
            trials = self.trials_to_draw(setup)
            write_outcome(self.folder, rows, trials, setup, self.title, summary)
            write_page(self, setup)
        except KeyboardInterrupt as stop:
            # Only here is it known that there is something to go on with.
            raise KeyboardInterrupt(f"go on with: hwsearch resume {self.folder}") from stop
        except (OSError, DataError, DeviceLostError) as error:
            kind = HwsearchError if isinstance(error, OSError) else type(error)
            raise kind(
                f"{error}. What was measured is kept; once the cause is gone, go on with: "
                f"hwsearch resume {self.folder}"
            ) from error
        return self

    def trials_to_draw(self, setup: Setup) -> "pd.DataFrame":
        """Return the trials with computed objectives beside the measured ones."""
        trials = self.trials
        with SqliteStore(self.folder / TRIALS) as store:
            archs = setup.net.space.architectures([trial.choices for trial in store.trials()])
        for objective in setup.objectives:
            if objective.computed is not None:
                trials[objective.name] = objective.computed(archs)
        return trials


def _default_folder(setup: Setup) -> Path:
    return Path("runs") / f"{setup.net.card.name}-{setup.device.slug}"
