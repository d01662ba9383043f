"""The scripted device on another machine: its process is killed when a file says so."""

import os
import signal
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from hwsearch.devices.spec import DeviceFactory

ENTRIES = {"scripted": "tests.kit.scripted_there:DEVICE"}
FILE = "HWSEARCH_TEST_KILLED"
"""Environment variable of a file with a number: that measuring job is the last one."""
ALWAYS, NEVER = 0, -1

# The package of the device needs what only this machine has.
_file = Path(__file__).parents[1] / "plugin" / "hwsearch_test_plugin" / "scripted_device.py"
_spec = spec_from_file_location("scripted_device", _file)
_scripted = module_from_spec(_spec)
_spec.loader.exec_module(_scripted)


def use(hosts, patch):
    """Put the device on the hosts; ``killing`` of these is the file."""
    hosts.killing = hosts.folder / "killing"
    patch.setenv(FILE, str(hosts.killing))
    root = str(Path(__file__).parents[2])
    patch.setenv("PYTHONPATH", os.pathsep.join([root, os.environ["PYTHONPATH"]]))
    patch.setattr("hwsearch.kit.ssh_device.device_entries", lambda: ENTRIES)
    return hosts


class Killed(_scripted.FakeDevice):
    def measure(self, models, **given):
        file = Path(os.environ[FILE])
        left = int(file.read_text()) if file.exists() else NEVER
        if left > ALWAYS:
            file.write_text(str(left - 1 or NEVER))
        if left in (ALWAYS, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().measure(models, **given)


DEVICE = DeviceFactory(name="scripted", create=Killed, available=lambda: None)
