"""Disk usage of runs, caches and imports, including leftovers of killed processes."""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from hwsearch.data import user_data
from hwsearch.devices.anchor import cache_folder
from hwsearch.errors import HwsearchError
from hwsearch.run.config import FILE
from hwsearch.run.lock import locked

Kind = Literal["run", "cache", "imported", "scratch"]
HALF = "half-written: its process was killed"
ENGINE = "an engine of a GPU: built again when it is needed"
SCRATCH = "scratch of a process that was killed"
_AGES_S: Final = {HALF: 3600.0, SCRATCH: 24 * 3600.0, ENGINE: 0.0}
# Names that `hwsearch.files` and `hwsearch.kit.build` give to incomplete files.
_STAGED = re.compile(
    r"\.(?:[\w-]+\.(?:toml|csv|json|pyz|png|html|onnx|txt)|SHA256SUMS|[0-9a-f]{16})\.[a-z0-9_]{8}"
)
_STAGED_IMPORT = re.compile(r"\.[A-Za-z0-9][A-Za-z0-9._+-]{0,63}\.[a-z0-9_]{8}")
_PART = re.compile(r"tmp[a-z0-9_]{8}\.part")
_SCRATCH = re.compile(r"hwsearch-(?:kit-|profile-)?[a-z0-9_]{8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """A file or folder that can be removed: its size in bytes, and the reason."""

    path: Path
    size: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUsage:
    """Disk usage of one folder, which may not exist: bytes of hwsearch's files and leftovers."""

    kind: Kind
    path: Path
    size: int
    leftovers: tuple[Leftover, ...]


def runs_below(folder: Path) -> list[Path]:
    """Return the runs in a folder and in its direct subfolders, sorted."""
    inner = [each for one in _folders(folder) for each in (one, *_folders(one))]
    return sorted(each for each in inner if os.path.isfile(each / FILE))


def disk_usage_of(runs: Sequence[Path]) -> list[DiskUsage]:
    """Measure the disk usage of each run, the cache, imported checkpoints and scratch folders.

    Files of a run and baselines of the anchor in the cache are never leftovers: without the
    baselines, milliseconds of a resumed run would not be comparable with earlier ones.
    """
    cache, home, scratch = cache_folder(), user_data(), Path(tempfile.gettempdir())
    found = [_place("run", run, _left_in_run(run)) for run in runs]
    found.append(_place("cache", cache, _left_in_cache(cache)))
    found.append(_place("imported", home, _left_in_home(home)))
    dead = tuple(_old(_matching(scratch, _SCRATCH), SCRATCH))
    size = sum(leftover.size for leftover in dead)
    return [*found, DiskUsage(kind="scratch", path=scratch, size=size, leftovers=dead)]


def remove_leftovers(places: Iterable[DiskUsage]) -> list[Leftover]:
    """Remove leftovers, except in runs that another process writes; return the removed ones."""
    gone: list[Leftover] = []
    for place in (each for each in places if each.leftovers):
        try:
            with locked(place.path) if place.kind == "run" else nullcontext():
                for leftover in place.leftovers:
                    _remove(leftover.path)
                    gone.append(leftover)
        except HwsearchError:
            continue
    return gone


def size_of(path: Path) -> int:
    """Return the bytes in a file or below a folder; links are not followed."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size if os.path.lexists(path) else 0
    files = (Path(above) / name for above, _, names in os.walk(path) for name in names)
    return sum(file.lstat().st_size for file in files if os.path.lexists(file))


def _place(kind: Kind, path: Path, leftovers: Iterable[Leftover]) -> DiskUsage:
    return DiskUsage(kind=kind, path=path, size=size_of(path), leftovers=tuple(leftovers))


def _left_in_run(run: Path) -> Iterator[Leftover]:
    subnets = run / "subnets"
    for folder in (run, subnets, *_folders(subnets)):
        if not _STAGED.fullmatch(folder.name):
            yield from _old(_matching(folder, _STAGED), HALF)


def _left_in_cache(cache: Path) -> Iterator[Leftover]:
    for pattern in (_STAGED, _PART):  # the second was the form of earlier versions
        yield from _old(_matching(cache / "baselines", pattern), HALF)
    yield from _old(_folders(cache / "engines"), ENGINE)


def _left_in_home(home: Path) -> Iterator[Leftover]:
    yield from _old(_matching(home / "supernets", _STAGED_IMPORT), HALF)
    yield from _old(_matching(home / "latency_tables", _STAGED), HALF)


def _old(paths: Iterable[Path], why: str) -> Iterator[Leftover]:
    """Yield the files of this user that have not been written to for long enough."""
    for path in paths:
        below = (Path(above) / name for above, _, names in os.walk(path) for name in names)
        written = [each.lstat() for each in (path, *below) if os.path.lexists(each)]
        mine = not hasattr(os, "getuid") or path.lstat().st_uid == os.getuid()
        if mine and time.time() - max(each.st_mtime for each in written) >= _AGES_S[why]:
            yield Leftover(path=path, size=size_of(path), why=why)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _matching(folder: Path, names: re.Pattern[str]) -> list[Path]:
    try:
        return sorted(each for each in folder.iterdir() if names.fullmatch(each.name))
    except OSError:
        return []


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(each for each in folder.iterdir() if each.is_dir())
    except OSError:
        return []
