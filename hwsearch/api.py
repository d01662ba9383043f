"""The public functions on runs: `hwsearch.run` with the reports of `hwsearch.report`."""

import inspect
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsearch.devices.throughput import BATCH_SIZES
from hwsearch.restriction import one_or_several
from hwsearch.run.folder import RunFolder
from hwsearch.run.progress import Progress, Silent
from hwsearch.run.search import confirm_run, resume_run, start_run
from hwsearch.run.setting import explanation
from hwsearch.run.settings import SearchSettings
from hwsearch.run.setup import Setup
from hwsearch.supernets.supernet import Supernet

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure


class Run(RunFolder):
    """A run folder: its settings, trials and front, and the report on them.

    Args:
        folder: A folder that `search` wrote, finished or not.

    Raises:
        InputError: The folder is no run.
    """

    @property
    def members(self) -> "pd.DataFrame":
        """Return the front, or else the candidates; ``NAME_source`` marks a ``predicted`` NAME.

        Raises:
            InputError: The run is not finished, or the file is damaged.
        """
        from hwsearch.report.notebook import Front

        return Front(super().members)

    def report(self, to: str | Path | None = None) -> Path:
        """Write the run as an HTML page that opens offline, the front's picture beside it.

        Args:
            to: The page, whose path is returned; by default ``report.html`` in the run's folder.

        Raises:
            InputError: The run cannot be read, or the file is a folder or cannot be written.
        """
        from hwsearch.report.write import write_report

        return write_report([self], Path(to) if to else None)[0]

    def plot(self, across: str | None = None) -> "Figure":
        """Return the front and every trial as a plotly figure.

        Args:
            across: The objective on the horizontal axis; by default latency, or the second one.

        Raises:
            InputError: There is no such objective, or the run cannot be read.
        """
        from hwsearch.report.front_figure import plotted

        return plotted(self, across)

    def _repr_html_(self) -> str:
        from hwsearch.report.notebook import run_html

        return run_html(self)

    def _draw(self, setup: Setup) -> None:
        from hwsearch.report.write import write_own_report

        write_own_report(self, setup)


def search(  # noqa: D417 - the settings are explained where they are declared, and below
    net: Supernet | str = "cifar10-resnet",
    *,
    checkpoint: str | None = None,
    device: str = "ort-cpu:threads=1",
    data: str = "bundled",
    objectives: Sequence[str] | None = None,
    constraints: Sequence[str] | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    budget: int | None = None,
    minutes: float | None = None,
    stop_gain: float | None = None,
    tactic: str = "hwsearch",
    seed: int = 0,
    batch: int | None = None,
    freeze: Sequence[str] | None = None,
    only: Sequence[str] | None = None,
    precision: str | None = None,
    prior: str = "on",
    warm_start: str | Path | None = None,
    out: str | Path | None = None,
    workers: str | int | None = None,
    progress: Progress | None = None,
) -> Run:
    """Search a supernet for one device, export the confirmed front, and write the report.

    Args:
        net: A loaded supernet, or its name; a checkpoint can be given with a name only.
        progress: Receives phases and steps.

    Raises:
        InputError: An argument cannot be used; nothing has been written.
        InfeasibleError: Nothing satisfies the constraints; the run can still be opened.
    """
    given: dict[str, Any] = {name: v for name, v in locals().items() if name in _SETTINGS}
    lists = ("objectives", "constraints", "freeze", "only")
    given |= {name: one_or_several(given[name]) for name in lists}
    given["batch_sizes"] = tuple(batch_sizes) if isinstance(batch_sizes, list) else batch_sizes
    given |= {n: str(given[n]) for n in ("warm_start", "out") if isinstance(given[n], Path)}
    loaded = net if isinstance(net, Supernet) else None
    given["supernet"] = net
    if loaded is not None:
        given |= {"supernet": loaded.name, "checkpoint": loaded.checkpoint}
        given["freeze"] = (*loaded.freeze, *given["freeze"])
        given["only"] = (*loaded.only, *given["only"])
        if loaded.precision is not None and precision is None:
            given["precision"] = str(loaded.precision)
    if budget is None:
        del given["budget"]
    settings, progress = SearchSettings(**given), progress or Silent()
    return start_run(Run, settings, loaded, progress, budget_of_reuse=budget is None)


def resume(  # noqa: D417 - likewise
    folder: str | Path,
    *,
    budget: int | None = None,
    minutes: float | None = None,
    stop_gain: float | None = None,
    net: Supernet | None = None,
    workers: str | int | None = None,
    progress: Progress | None = None,
) -> Run:
    """Continue a stopped run, or a finished one with a larger budget.

    Args:
        folder: The run's folder.
        net: The supernet, where it cannot be loaded by its recorded name.
        progress: Receives phases and steps.

    Raises:
        InputError: The folder is no run, or the supernet, data or device have changed.
    """
    limits = {"budget": budget, "minutes": minutes, "stop_gain": stop_gain}
    return resume_run(Run, Path(folder), limits, net, workers, progress or Silent())


def confirm(
    folder: str | Path,
    timings: str | Path,
    *,
    net: Supernet | None = None,
    progress: Progress | None = None,
) -> Run:
    """Turn the candidates of a run into a front by its kit's measurements; repeatable.

    Args:
        folder: The run's folder.
        timings: The file that the run's kit wrote on the device.
        net: The supernet, where it cannot be loaded by its recorded name.
        progress: Receives phases and steps.

    Raises:
        InputError: The folder is no run, the file is incomplete, was changed, or is of another
            kit, run or device, or supernet or data have changed. The run stays as it was.
        InfeasibleError: Nothing satisfies the constraints as measured; the text names the
            closest.
    """
    return confirm_run(Run, Path(folder), Path(timings), net, progress or Silent())


_SETTINGS = {each.name: each for each in fields(SearchSettings)}
for _function in (search, resume):
    if _function.__doc__:  # python -OO leaves none
        _told = "".join(
            f"        {name}: {explanation(_SETTINGS[name])}\n"
            for name in inspect.signature(_function).parameters
            if name in _SETTINGS
        )
        _function.__doc__ = _function.__doc__.replace(
            "        progress:", f"{_told}        progress:"
        )
