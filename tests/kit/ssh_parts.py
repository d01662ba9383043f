"""A stand-in for ``ssh`` that runs the command on this machine, or fails as a file says."""

import os
import signal
import sys
import time

from tests.contracts.device_contract import QUICK

# A host runs the command unless there is a file of its name: that is then its failure.
SSH = """#!/bin/sh
while [ "$1" != "--" ]; do shift; done
echo "$2" >> "{folder}/connected"
if [ -e "{folder}/$2" ]; then . "{folder}/$2"; fi
shift 2
exec sh -c "exec $*"
"""


class FakeHosts:
    """The folder of the stand-in: failures of hosts, and what is left of the other machine."""

    def __init__(self, folder, patch):
        self.folder = folder
        for name in ("bin", "tmp"):
            (folder / name).mkdir()
        self.program(folder / "bin" / "ssh", SSH.format(folder=folder))
        patch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("TMPDIR", str(folder / "tmp"))
        patch.setenv("HWSEARCH_SSH_PYTHON", sys.executable)
        patch.setattr("hwsearch.kit.ssh_device._PAUSES_S", (0.0, 0.0))

    def program(self, path, text):
        path.write_text(text)
        path.chmod(0o755)
        return path

    def fails(self, host, script):
        """From now on, lines of a shell run before the command of this host."""
        (self.folder / host).write_text(script)

    def says(self, host, text, code=255):
        self.fails(host, f"echo '{text}' >&2; exit {code}")

    @property
    def connected(self):
        """Hosts in the order in which they were connected to."""
        return (self.folder / "connected").read_text().split()

    @property
    def left(self):
        """Return the folders of the other machine that have not been removed in a while."""
        for _ in range(200):
            if not (found := list((self.folder / "tmp").glob("hwsearch-ssh-*"))):
                break
            time.sleep(0.05)
        return found


def measure_through_a_loss(device, model):
    """Time a model while the connection of an ssh device is killed once; return its latency."""
    killed = []

    def kill(*_):
        if not killed:
            killed.append(device._connection.pid)
            os.kill(killed[0], signal.SIGKILL)

    found = device.measure({"a": model}, seed=0, settings=QUICK, progress=kill)
    assert killed
    return found["a"]
