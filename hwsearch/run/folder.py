"""A run: its folder, and the search that writes it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hwsearch.accuracy.task import NO_DATA
from hwsearch.errors import DataError, DeviceLostError, HwsearchError, InputError
from hwsearch.files import MAX_BYTES, read_bounded
from hwsearch.objectives import Objective
from hwsearch.run.checksums import remove_checksums
from hwsearch.run.cluster.scheduler import cluster_device
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
from hwsearch.supernets.checkpoints import is_random
from hwsearch.supernets.supernet import Supernet
from hwsearch.trial_store import Store
from hwsearch.trials import Measurement

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


Draw = Callable[["RunFolder", Setup], object]


def draw_nothing(run: "RunFolder", setup: Setup) -> None:
    """Draw nothing of a finished run."""


def search(
    settings: SearchSettings,
    net: Supernet | None = None,
    *,
    budget_of_reuse: bool = False,
    progress: Progress | None = None,
    draw: Draw = draw_nothing,
) -> "RunFolder":
    """Search a supernet for one device and export the confirmed front.

    With ``budget_of_reuse``, the number of reused values is the budget, if there are any. ``draw``
    draws the finished run from its parts.

    Raises:
        InputError: An input is not usable; nothing has been written.
        InfeasibleError: No architecture satisfies the constraints; the run can be inspected.
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
        return RunFolder(folder)._carry_on(setup, progress, workers, draw)


def resume(
    folder: str | Path,
    limits: tuple[int | None, float | None, float | None] = (None, None, None),
    net: Supernet | None = None,
    workers: Workers = None,
    progress: Progress | None = None,
    draw: Draw = draw_nothing,
) -> "RunFolder":
    """Resume a run that was stopped, or extend a finished one.

    ``limits`` are another budget, minutes and stop_gain; None keeps one. ``workers`` may differ
    from those of earlier processes.

    Raises:
        InputError: The folder is no run, or the supernet, data or device have changed.
    """
    run = RunFolder(folder)
    check_workers(workers)
    with locked(run.folder):
        return _resumed(RunFolder(folder), limits, net, workers, progress or Silent(), draw)


def _resumed(
    run: "RunFolder",
    limits: tuple[int | None, float | None, float | None],
    net: Supernet | None,
    workers: Workers,
    progress: Progress,
    draw: Draw,
) -> "RunFolder":
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
    Store(run.folder / TRIALS).close()
    if setup.config != run.config:
        for name in (FRONT, CANDIDATES, KIT, REPORT):
            (run.folder / name).unlink(missing_ok=True)
        write_config(run.folder, setup.config, run.recorded)
    return run._carry_on(setup, progress, workers, draw)


class RunFolder:
    """A run folder: its settings, trials and front.

    Args:
        folder: Folder of a run, finished or not.

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
        """Directories in which relative paths of its settings are looked for."""
        return places(self.folder, self.recorded)

    @property
    def finished(self) -> bool:
        """Whether the run has a front, or candidates that are to be timed or given images."""
        awaited = (CANDIDATES, KIT) if self.config.device.startswith("kit:") else (CANDIDATES,)
        return self.confirmed or all((self.folder / name).is_file() for name in awaited)

    @property
    def confirmed(self) -> bool:
        """Whether it has a front; a search by a table or without data ends with candidates."""
        return (self.folder / FRONT).is_file()

    @property
    def untrained(self) -> bool:
        """Whether the weights are random, so that accuracies are meaningless."""
        return is_random(self.config.checkpoint)

    @property
    def front(self) -> "pd.DataFrame":
        """Table with one row per member of the front: measured values with their intervals.

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
        """The front, or the candidates; ``NAME_source`` is ``predicted`` for predicted values.

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
        """Summary of the search; None before it is finished, and for runs of the first version.

        Raises:
            InputError: The file is damaged.
        """
        path = self.folder / SUMMARY
        if not (self.finished and path.is_file()):
            return None
        try:
            text = read_bounded(path, MAX_BYTES).decode()
        except (OSError, ValueError) as error:
            raise InputError(f"{str(path)!r} cannot be read: {error}; delete it") from error
        return SearchSummary.from_json(text, repr(str(path)))

    def store(self) -> Store:
        """Return a copy in memory of the trials and measurements; empty before the first trial."""
        path = self.folder / TRIALS
        return Store.snapshot(path) if path.is_file() else Store()

    @property
    def trials(self) -> "pd.DataFrame":
        """Table with one row per trial: its state and what the search measured."""
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
        """Return all measurements in the order in which they were made."""
        with self.store() as store:
            return store.measurements()

    def setup(self, net: Supernet | None = None) -> Setup:
        """Load the supernet, device and data of the run."""
        return prepare(self.config, net, directories=self.directories)

    def select(self, select: str = "all") -> list[str]:
        """Return keys by ``"all"``, ``"knee"``, a key, or a constraint, as ``"latency <= 12"``.

        ``"latency <= 12 @ 95%"`` selects the best member by the first objective among those whose
        true latency is at most 12 ms with a probability of 95%; see
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
        """Verify selected subnets again and return their folders, copied into ``to`` if given.

        Args:
            select: See `select`.
            to: Folder that receives one folder per subnet; None copies nothing.

        Raises:
            InputError: Nothing is selected, or the target has such a folder already.
            VerificationError: A file is damaged.
        """
        check_exported(self.folder, self.config)
        folders = [self.folder / SUBNETS / key for key in self.select(select)]
        return export_subnets(folders, self.config.device, Path(to) if to else None)

    def verify(self) -> dict[str, str | None]:
        """Check exported subnets from their files alone, and the run's files by their checksums.

        Returns:
            Key -> problem or None; and name -> problem of other damaged files.
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
        """Objectives of the run, without the functions that compute exact ones.

        Raises:
            InputError: The settings record none.
        """
        recorded = self.recorded.get("objectives")
        if not recorded:
            raise InputError(
                f"run {str(self.folder)!r} is damaged: its settings record no objectives"
            )
        return [Objective(o["name"], o["direction"], unit=o["unit"]) for o in recorded]

    @property
    def with_images(self) -> str:
        """Command that makes a front of the candidates of a search without data."""
        return with_images(self.folder, self.config)

    @property
    def title(self) -> str:
        """The supernet and the device as a title."""
        title = f"{self.config.supernet} on {self.config.device}"
        return f"{title}, random weights ({self.config.checkpoint})" if self.untrained else title

    def _carry_on(
        self, setup: Setup, progress: Progress, workers: Workers, draw: Draw
    ) -> "RunFolder":
        """Complete the run."""
        self.config = setup.config
        if risk := network_risk(self.folder):
            progress.note(risk)
        try:
            remove_checksums(self.folder)
            rows, summary = search_and_finish(self.folder, setup, progress, workers)
            write_outcome(self.folder, rows, setup, summary)
            draw(self, setup)
        except KeyboardInterrupt as stop:
            # Only here is there a run to resume.
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
