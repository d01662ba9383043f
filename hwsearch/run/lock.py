"""Lock of a run folder: only one process writes a run at a time."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hwsearch.errors import HwsearchError
from hwsearch.files import MAX_BYTES, file_system, parsed_json, read_bounded, write_atomic

LOCK, HOLDER = ".lock", ".lock.json"
NETWORK = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "9p", "ceph", "lustre", "gpfs"),
        *("beegfs", "glusterfs", "fuse.glusterfs", "fuse.ceph", "fuse.sshfs", "fuse.rclone"),
        *("fuse.s3fs", "fuse.gcsfuse", "fuse.juicefs", "pvfs2", "orangefs", "ocfs2", "gfs2"),
    }
)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a run's folder against writing by other processes until the block ends.

    The system releases the lock of a killed process. Other machines may not see the lock on a
    network file system; there, a recorded holder on another machine counts as a lock. Raise
    HwsearchError where another process has the lock, or the folder cannot be written.
    """
    path = folder / LOCK
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise HwsearchError(
            f"run {str(folder)!r} is being written by {_named(_holder(folder))}; wait until it "
            "ends, or stop it: it can be gone on with"
        ) from None
    except (OSError, NotImplementedError) as error:  # a file system may have no locks
        raise HwsearchError(
            f"run {str(folder)!r} cannot be written: {error}; make its folder writable, or copy "
            "the run to where you may write"
        ) from error
    try:
        holder = _holder(folder)
        elsewhere = holder.get("host") not in (None, socket.gethostname())
        if elsewhere and file_system(folder) in NETWORK:
            raise HwsearchError(
                f"run {str(folder)!r} was being written by {_named(holder)}, and a network file "
                f"system does not show whether it still is; remove {str(folder / HOLDER)!r} once "
                "that process is gone"
            )
        began = datetime.now(UTC).isoformat(timespec="seconds")
        record = {"pid": os.getpid(), "host": socket.gethostname(), "began": began}
        write_atomic(folder / HOLDER, json.dumps(record))
        try:
            yield
        finally:
            (folder / HOLDER).unlink(missing_ok=True)
    finally:
        if os.name == "posix":  # before release, so that a waiting process finds no file
            path.unlink(missing_ok=True)
        lock.release()


def network_risk(folder: Path) -> str:
    """Return a warning on a run on a network file system; empty on a local disk."""
    kind = file_system(folder)
    if kind not in NETWORK:
        return ""
    return (
        f"run {str(folder)!r} lies on a network file system ({kind}): a lost connection can "
        "damage its trials.sqlite, and another machine may write it at the same time unseen; give "
        "--out on a local disk, and copy the run when it is finished"
    )


def _holder(folder: Path) -> dict[str, Any]:
    """Return the record of the process that has or had the lock; empty without one."""
    try:
        found = parsed_json(read_bounded(folder / HOLDER, MAX_BYTES))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _named(holder: dict[str, Any]) -> str:
    pid, host = holder.get("pid", "unknown"), holder.get("host", "unknown")
    return f"process {pid!s:.20} on {host!s:.80}, since {holder.get('began', 'unknown')!s:.40}"
