"""A run folder: its settings, trials and front, and its exported subnets."""

import shutil
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from hwsearch import devices
from hwsearch.accuracy.task import NO_DATA
from hwsearch.errors import InputError, VerificationError
from hwsearch.evaluation.measurements import BATCH_LATENCY
from hwsearch.evaluation.timings import with_corrected_timings
from hwsearch.files import MAX_BYTES, read_bounded, staged_folder
from hwsearch.models.artifact import WEIGHTS, read_card
from hwsearch.objectives import Objective
from hwsearch.run import outcome
from hwsearch.run.config import FILE, TRIALS, places, read_config
from hwsearch.run.front import select_keys
from hwsearch.run.front_probability import constraint_probabilities
from hwsearch.run.outcome import CANDIDATES, FRONT, KIT, SUBNETS, SUMMARY
from hwsearch.run.search_summary import SearchSummary
from hwsearch.run.setup import TRIAL_COLUMNS, Setup, prepare
from hwsearch.supernets.supernet import Supernet
from hwsearch.supernets.weight_sources import is_random
from hwsearch.trial_store import Store
from hwsearch.trials import Measurement
from hwsearch.verify.subnet import verify_artifact

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


class RunFolder:
    """A run folder, finished or not; see `hwsearch.Run`."""

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
        if self.finished and not self.confirmed:
            why = (
                f"their accuracies are predicted; with images: {self.with_images}"
                if self.config.data == NO_DATA
                else f"their latencies are predicted; run {self.folder / KIT} on the device, then "
                f"'hwsearch confirm {self.folder} timings.json'"
            )
            raise InputError(f"run {str(self.folder)!r} has candidates and no front: {why}")
        return self.members

    @property
    def members(self) -> "pd.DataFrame":
        """The front, or the candidates; ``NAME_source`` is ``predicted`` for predicted values."""
        if not self.finished:
            raise InputError(
                f"run {str(self.folder)!r} has no front yet; finish it by "
                f"'hwsearch resume {self.folder}'"
            )
        name = FRONT if self.confirmed else CANDIDATES
        return outcome.read_members(self.folder / name, [each.name for each in self.objectives])

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
            text = read_bounded(path, MAX_BYTES)
        except (OSError, ValueError) as error:
            raise InputError(f"{str(path)!r} cannot be read: {error}; delete it") from error
        return SearchSummary.from_json(text, repr(str(path)))

    def store(self) -> Store:
        """Return a copy in memory of the trials and measurements; empty before the first trial."""
        path = self.folder / TRIALS
        return Store.snapshot(path) if path.is_file() else Store()

    @property
    def trials(self) -> "pd.DataFrame":
        """Table with one row per trial: its state and what the search measured.

        Latencies and throughputs are corrected for the shifts between timing jobs.
        """
        import pandas as pd

        with self.store() as store:
            trials = store.trials()
            measured: dict[str, dict[str, float]] = {trial.key: {} for trial in trials}
            for m in with_corrected_timings(store.measurements()):
                if m.purpose == "search" and m.quantity != BATCH_LATENCY:
                    measured[m.key][m.quantity] = m.value
        rows = [
            {name: getattr(trial, name) for name in TRIAL_COLUMNS}
            | {"state": str(trial.state)}
            | measured[trial.key]
            | trial.choices
            for trial in trials
        ]
        return pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(TRIAL_COLUMNS))

    def measurements(self) -> list[Measurement]:
        """Return all measurements in the order in which they were made."""
        with self.store() as store:
            return store.measurements()

    def setup(self, net: Supernet | None = None) -> Setup:
        """Load the supernet, device and data of the run."""
        return prepare(self.config, net, directories=self.directories, recorded=self.recorded)

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
        self._check_exported()
        folders = [self.folder / SUBNETS / key for key in self.select(select)]
        targets = [Path(to) / folder.name if to else folder for folder in folders]
        if to:
            refuse_file("target", Path(to))
            if (taken := next((each for each in targets if each.exists()), None)) is not None:
                raise InputError(f"{str(taken)!r} exists already; give another folder")
        with closing(devices.load_device(self.config.device)) as device:
            # All before the first copy, so that a damaged one prevents a partial export.
            for folder in folders:
                verify_artifact(folder, device)
        for folder, target in zip(folders, targets, strict=True) if to else ():
            with staged_folder(target) as staged:
                for path in (each for each in folder.rglob("*") if each.is_file()):
                    copy = staged / path.relative_to(folder)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, copy)  # content alone: the original may be read-only
        return targets

    def verify(self) -> dict[str, str | None]:
        """Check exported subnets from their files alone, and the run's files by their checksums.

        Return key -> problem or None, and name -> problem of other damaged files.
        """
        self._check_exported()
        damaged = outcome.damaged_files(self.folder)
        of_subnets = {name: name.split("/") for name in damaged if name.startswith(f"{SUBNETS}/")}
        found: dict[str, str | None] = {n: w for n, w in damaged.items() if n not in of_subnets}
        if FILE in found:
            return found
        if found:  # the table that names the subnets may be damaged
            keys = sorted(path.name for path in (self.folder / SUBNETS).glob("[!.]*"))
        else:
            keys = self.select("all")
        with closing(devices.load_device(self.config.device)) as device:
            for key in keys:
                try:
                    verify_artifact(self.folder / SUBNETS / key, device)
                    found[key] = None
                except (VerificationError, InputError) as error:
                    found[key] = str(error)
        for name, (_, key, *file) in of_subnets.items():
            found[key] = found.get(key) or f"{'/'.join(file)}: {damaged[name]}"
        return found

    def subnet(self, key: str) -> "nn.Module":
        """Return an exported subnet as a network, with its weights and batch statistics.

        Raises:
            InputError: The key is not on the front.
        """
        from safetensors.torch import load_file

        self._check_exported()
        folder, net = self.folder / SUBNETS / self.select(key)[0], self.setup().net
        network = net.subnet(net.space.architectures([read_card(folder)["architecture"]])[0])
        network.load_state_dict(load_file(folder / WEIGHTS))
        return network.eval()

    @property
    def objectives(self) -> list[Objective]:
        """Objectives of the run, without the functions that compute exact ones."""
        recorded = self.recorded.get("objectives")
        if not recorded:
            raise InputError(
                f"run {str(self.folder)!r} is damaged: its settings record no objectives"
            )
        return [Objective(o["name"], o["direction"], unit=o["unit"]) for o in recorded]

    @property
    def with_images(self) -> str:
        """Command that makes a front of the candidates of a search without data."""
        config = self.config
        checkpoint = "FILE" if self.untrained else config.checkpoint
        weights = f" --checkpoint {checkpoint}" if checkpoint else ""
        wanted = "".join(f" --objective {name}" for name in config.objectives)
        return (
            f"hwsearch search --supernet {config.supernet}{weights} --device {config.device}"
            f"{wanted} --data imagefolder:PATH --warm-start {self.folder}"
        )

    @property
    def title(self) -> str:
        """The supernet and the device as a title."""
        title = f"{self.config.supernet} on {self.config.device}"
        return f"{title}, random weights ({self.config.checkpoint})" if self.untrained else title

    def _check_exported(self) -> None:
        """Refuse a run without data, whose candidates have no models."""
        if self.config.data == NO_DATA:
            raise InputError(
                f"run {str(self.folder)!r} was searched without data, so that its candidates have "
                "a card.json and no model.onnx: batch statistics and the check of a model need "
                f"images. With images: {self.with_images}"
            )

    def _draw(self, setup: Setup) -> None:
        """Draw the finished run from its parts; `hwsearch.Run` writes its report here."""


def refuse_file(what: str, folder: Path) -> None:
    """Refuse a path if it or a parent is a file."""
    standing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not standing.is_dir():
        raise InputError(
            f"{what} {str(folder)!r}: {str(standing)!r} is a file; "
            "give a folder that does not exist yet"
        )
