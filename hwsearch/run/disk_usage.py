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
# Those of folders of elastic models, and of statistics that are gathered for one.
_STAGED_ELASTIC = re.compile(r"\.[\w.+-]+\.elastic\.(?:unfinished|[a-z0-9_]{8})")
_STAGED_IMPORT = re.compile(r"\.[A-Za-z0-9][A-Za-z0-9._+-]{0,63}\.[a-z0-9_]{8}")
_BASELINE = re.compile(rf"{_STAGED.pattern}|tmp[a-z0-9_]{{8}}\.part")  # that of earlier versions
_ENGINE = re.compile(r"[^.].*")
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
    half_written = _left(cache / "baselines", _BASELINE, HALF)
    in_cache = (*half_written, *_left(cache / "engines", _ENGINE, ENGINE))
    half_written = _left(home / "supernets", _STAGED_IMPORT, HALF)
    half_elastic = _left(home / "elastic", _STAGED_ELASTIC, HALF)
    in_home = (*half_written, *half_elastic, *_left(home / "latency_tables", _STAGED, HALF))
    dead = tuple(_left(scratch, _SCRATCH, SCRATCH))
    return [
        *(_usage("run", run, _left_in_run(run)) for run in runs),
        _usage("cache", cache, in_cache),
        _usage("imported", home, in_home),
        DiskUsage(kind="scratch", path=scratch, size=sum(e.size for e in dead), leftovers=dead),
    ]


def remove_leftovers(places: Iterable[DiskUsage]) -> list[Leftover]:
    """Remove leftovers, except in runs that another process writes; return the removed ones."""
    gone: list[Leftover] = []
    for place in (each for each in places if each.leftovers):
        try:
            with locked(place.path) if place.kind == "run" else nullcontext():
                for leftover in place.leftovers:
                    if leftover.path.is_dir() and not leftover.path.is_symlink():
                        shutil.rmtree(leftover.path)
                    else:
                        leftover.path.unlink(missing_ok=True)
                    gone.append(leftover)
        except HwsearchError:
            continue
    return gone


def size_of(path: Path) -> int:
    """Return the bytes in a file or below a folder; links are not followed."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size if os.path.lexists(path) else 0
    return sum(file.st_size for file in _files_below(path))


def _files_below(folder: Path) -> Iterator[os.stat_result]:
    files = (Path(above) / name for above, _, names in os.walk(folder) for name in names)
    return (file.lstat() for file in files if os.path.lexists(file))


def _usage(kind: Kind, path: Path, leftovers: Iterable[Leftover]) -> DiskUsage:
    return DiskUsage(kind=kind, path=path, size=size_of(path), leftovers=tuple(leftovers))


def _left_in_run(run: Path) -> Iterator[Leftover]:
    subnets = run / "subnets"
    for folder in (run, subnets, *_folders(subnets)):
        if not _STAGED.fullmatch(folder.name):
            yield from _left(folder, _STAGED, HALF)


def _left(folder: Path, names: re.Pattern[str], why: str) -> Iterator[Leftover]:
    """Yield what this user has in a folder by these names, not written to for long enough."""
    for path in (each for each in _entries(folder) if names.fullmatch(each.name)):
        own = path.lstat()
        mine = not hasattr(os, "getuid") or own.st_uid == os.getuid()
        written = max(each.st_mtime for each in (own, *_files_below(path)))
        if mine and time.time() - written >= _AGES_S[why]:
            yield Leftover(path=path, size=size_of(path), why=why)


def _folders(folder: Path) -> list[Path]:
    return [each for each in _entries(folder) if each.is_dir()]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
