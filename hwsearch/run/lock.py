"""One process at a time writes a run, and where its folder lies decides how safe that is."""

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hwsearch.errors import HwsearchError
from hwsearch.files import file_system

LOCK = ".lock"
NETWORK = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "9p", "ceph", "lustre", "gpfs"),
        *("beegfs", "glusterfs", "fuse.glusterfs", "fuse.ceph", "fuse.sshfs", "fuse.rclone"),
        *("fuse.s3fs", "fuse.gcsfuse", "fuse.juicefs", "pvfs2", "orangefs", "ocfs2", "gfs2"),
    }
)
_LONGEST = 1000


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing a run; it is let go of at the end, however that comes.

    The system lets go of the lock of a process that was killed: what such a one left behind is
    taken over. On a network file system that holds for processes of this machine only.

    Args:
        folder: Of the run.

    Raises:
        HwsearchError: Another process has it, or the folder cannot be written.
    """
    if sys.platform == "win32":  # it has no such locks
        yield
        return
    path = folder / LOCK
    try:
        handle = _take(path, folder)
    except OSError as error:
        raise HwsearchError(
            f"run {str(folder)!r} cannot be written: {error}; make its folder writable, or copy "
            "the run to where you may write"
        ) from error
    try:
        yield
    finally:
        # Removed while it is held: another process that waits for it sees that the file is gone.
        path.unlink(missing_ok=True)
        os.close(handle)


def network_risk(folder: Path) -> str:
    """Say what a run on a network file system risks; empty for one on a local disk."""
    kind = file_system(folder)
    if kind not in NETWORK:
        return ""
    return (
        f"run {str(folder)!r} lies on a network file system ({kind}): a lost connection can "
        "damage its trials.sqlite, and another machine may write it at the same time unseen; give "
        "--out on a local disk, and copy the run when it is finished"
    )


def _take(path: Path, folder: Path) -> int:
    """Return a descriptor that holds the lock, with who has it written into the file."""
    import fcntl

    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it may have removed the file in between, and a third made another.
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                _check_abandoned(_holder(handle), folder)
                _sign(handle)
                return handle
        except BlockingIOError:
            busy = _busy(_holder(handle), folder)
            os.close(handle)
            raise busy from None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _sign(handle: int) -> None:
    began = datetime.now(UTC).isoformat(timespec="seconds")
    record = {"pid": os.getpid(), "host": socket.gethostname(), "began": began}
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(record).encode(), 0)


def _holder(handle: int) -> dict[str, Any]:
    """Who has the lock, or had it last; empty where nobody signed."""
    try:
        found = json.loads(os.pread(handle, _LONGEST, 0))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _check_abandoned(holder: dict[str, Any], folder: Path) -> None:
    """Refuse what another machine may still hold: its locks need not be seen from here."""
    elsewhere = holder.get("host") not in (None, socket.gethostname())
    if elsewhere and file_system(folder) in NETWORK:
        raise HwsearchError(
            f"run {str(folder)!r} was being written by {_named(holder)}, and a network file "
            f"system does not show whether it still is; remove {str(folder / LOCK)!r} once that "
            "process is gone"
        )


def _busy(holder: dict[str, Any], folder: Path) -> HwsearchError:
    return HwsearchError(
        f"run {str(folder)!r} is being written by {_named(holder)}; wait until it ends, or stop "
        "it: it can be gone on with"
    )


def _named(holder: dict[str, Any]) -> str:
    pid, host = holder.get("pid", "unknown"), holder.get("host", "unknown")
    return f"process {pid!s:.20} on {host!s:.80}, since {holder.get('began', 'unknown')!s:.40}"
