"""A run: its folder, and the search that fills it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hwsearch.accuracy.task import NO_DATA
from hwsearch.errors import DataError, DeviceLostError, HwsearchError, InputError
from hwsearch.files import MAX_BYTES, read_bounded
from hwsearch.objectives import Objective
from hwsearch.run.checksums import remove_checksums
from hwsearch.run.cluster.workers import cluster_device
from hwsearch.run.config import PICTURE, REPORT, TRIALS, read_config, write_config
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
from hwsearch.run.settings import SearchSettings, Workers, check_workers
from hwsearch.run.setup import (
    TRIAL_COLUMNS,
    Setup,
    check_output,
    check_same,
    prepare,
)
from hwsearch.run.value_sources.registry import with_recorded_sources, with_sources
from hwsearch.run.working_folder import places, recorded_place
from hwsearch.supernets.base import Supernet, is_random
from hwsearch.trials import Measurement
from hwsearch.trials_memory import MemoryStore
from hwsearch.trials_sqlite import SqliteStore

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


Draw = Callable[["Run", Setup], object]


def draw_nothing(run: "Run", setup: Setup) -> None:
    """Draw nothing of a finished run."""


def search(
    settings: SearchSettings,
    net: Supernet | None = None,
    *,
    budget_of_reuse: bool = False,
    progress: Progress | None = None,
    draw: Draw = draw_nothing,
) -> "Run":
    """Search a supernet for one device and export the confirmed front.

    Args:
        settings: Of the search.
        net: The supernet, where it is loaded already.
        budget_of_reuse: Whether the budget is what a warm start reuses, if it reuses anything.
        progress: Told of phases and steps.
        draw: Draws the finished run, whose parts it is given; by default nothing is drawn.

    Returns:
        The finished run.

    Raises:
        InputError: Something given cannot be used; nothing has been written.
        InfeasibleError: Nothing satisfies the constraints; the run can be looked at all the same.
    """
    config, workers = settings.config, settings.workers
    if settings.out is not None:
        check_output(Path(settings.out))
    device_there = cluster_device(workers, config.device)
    setup = with_sources(prepare(config, net, device_there))
    if budget_of_reuse:
        n_reused = sum(source.n_reused for source in setup.sources)
        setup = replace(setup, config=config.with_budget(n_reused or None))
    folder = Path(settings.out) if settings.out is not None else _default_folder(setup)
    check_output(folder)
    progress = progress or Silent()
    setup.read(progress)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        check_output(folder)
        # Written first: a folder with this file alone can be resumed.
        write_config(folder, setup.config, setup.recorded() | recorded_place(folder))
        for source in setup.sources:
            source.copy_to(folder)
        return Run(folder)._carry_on(setup, progress, workers, draw)


def resume(
    folder: str | Path,
    limits: tuple[int | None, float | None, float | None] = (None, None, None),
    net: Supernet | None = None,
    workers: Workers = None,
    progress: Progress | None = None,
    draw: Draw = draw_nothing,
) -> "Run":
    """Go on with a run that was stopped, or give a finished one a larger budget.

    Args:
        folder: Of the run.
        limits: Another budget, minutes and stop_gain; None leaves one as it is.
        net: For a supernet that cannot be loaded by its recorded name.
        workers: As for `search`; it may differ from that of earlier processes.
        progress: Told of phases and steps.
        draw: As for `search`.

    Raises:
        InputError: The folder is no run, or the supernet, data or device are no longer the same.
    """
    run = Run(folder)
    check_workers(workers)
    with locked(run.folder):
        return _resumed(Run(folder), limits, net, workers, progress or Silent(), draw)


def _resumed(
    run: "Run",
    limits: tuple[int | None, float | None, float | None],
    net: Supernet | None,
    workers: Workers,
    progress: Progress,
    draw: Draw,
) -> "Run":
    device_there = cluster_device(workers, run.config.device)
    setup = prepare(run.config.with_limits(*limits), net, device_there, run.directories)
    setup.read(progress)
    check_same(run.folder, run.recorded, setup.recorded())
    if setup.config == run.config and run.finished:
        if not all((run.folder / name).is_file() for name in (REPORT, PICTURE)):
            draw(run, setup)  # it was stopped between its front and its report
        return run
    setup = with_recorded_sources(setup, run.folder, run.recorded)
    # Opened once before anything is changed: a damaged store is refused here.
    SqliteStore(run.folder / TRIALS).close()
    if setup.config != run.config:
        for name in (FRONT, CANDIDATES, KIT, REPORT):
            (run.folder / name).unlink(missing_ok=True)
        write_config(run.folder, setup.config, run.recorded)
    return run._carry_on(setup, progress, workers, draw)


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
    def directories(self) -> tuple[Path, ...]:
        """Where relative paths of its settings are looked for."""
        return places(self.folder, self.recorded)

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
            InputError: The run is not finished, or has candidates that were not timed.
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
        return read_members(self.folder / name, [each.name for each in self.objectives])

    @property
    def summary(self) -> SearchSummary | None:
        """Summary of the search; None for a run that the first version finished.

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

    def store(self) -> SqliteStore | MemoryStore:
        """Return a copy in memory of the trials and measurements; empty before the first one."""
        path = self.folder / TRIALS
        return SqliteStore.snapshot(path) if path.is_file() else MemoryStore()

    @property
    def trials(self) -> "pd.DataFrame":
        """One row per trial: its state and what the search measured of it."""
        import pandas as pd

        with self.store() as store:
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
        with self.store() as store:
            return store.measurements()

    def setup(self, net: Supernet | None = None) -> Setup:
        """Load the supernet, device and data of the run."""
        return prepare(self.config, net, directories=self.directories)

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
        """Title: the supernet and the device."""
        title = f"{self.config.supernet} on {self.config.device}"
        return f"{title}, random weights ({self.config.checkpoint})" if self.untrained else title

    def _carry_on(self, setup: Setup, progress: Progress, workers: Workers, draw: Draw) -> "Run":
        """Do what is still to be done."""
        self.config = setup.config
        if risk := network_risk(self.folder):
            progress.note(risk)
        try:
            remove_checksums(self.folder)
            rows, summary = search_and_finish(self.folder, setup, progress, workers)
            write_outcome(self.folder, rows, setup, summary)
            draw(self, setup)
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


def _default_folder(setup: Setup) -> Path:
    return Path("runs") / f"{setup.net.card.name}-{setup.device.slug}"
