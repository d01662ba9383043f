"""Folders that may be read and not written, for tests that root runs too."""

import contextlib
import os
import sys
from pathlib import Path

NOBODY = 65534


@contextlib.contextmanager
def only_readable(folder):
    """Take the permission to write to a folder and to everything in it, while the block runs."""
    paths = [Path(folder), *Path(folder).rglob("*")]
    parents = {
        parent for path in (folder, *filter(None, sys.path)) for parent in Path(path).parents
    }
    before = {path: path.stat().st_mode for path in (*paths, *parents)}
    for path in parents:  # packages are read from where they are, too
        if not before[path] & 0o001:
            path.chmod(before[path] | 0o011)
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    root = os.geteuid() == 0
    if root:  # whom permissions do not concern
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for path, mode in before.items():
            if path.stat().st_mode != mode:
                path.chmod(mode)
