"""A device whose latencies follow from names, and that notices what runs beside it."""

import contextlib
import os
import time
import zlib
from pathlib import Path

import onnxruntime

from hwsearch.devices import DeviceFactory
from hwsearch.errors import DeviceError
from hwsearch_test_plugin.scripted_device import FakeDevice

MEASURING_S = 0.05


def alone(folder):
    """The file that is there while this machine measures: all of a node have one parent."""
    return Path(folder) / f"measuring-{os.getppid()}"


class ByKey(FakeDevice):
    """Latencies by the name of a model; every fifth cannot be timed. Outputs come from here."""

    def __init__(self, folder):
        super().__init__(self._by_name, name="by-key")
        self.folder, self.spec = Path(folder), f"by-key:{folder}"

    def fingerprint(self):
        return {**super().fingerprint(), "script": "by key"}

    def run(self, model, batches):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(str(model), options, providers=providers)
        for batch in batches:
            yield session.run(None, dict(batch))

    def _by_name(self, name, path):
        try:
            os.close(os.open(alone(self.folder), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            raise DeviceError("something else was measured at the same time") from None
        (self.folder / f"timed-by-{os.getppid()}").touch()
        try:
            time.sleep(MEASURING_S)
        finally:
            with contextlib.suppress(FileNotFoundError):
                alone(self.folder).unlink()
        code = zlib.crc32(name.encode())
        if code % 5 == 0:
            raise DeviceError("scripted to fail")
        return 1 + code % 89 / 10


BY_KEY = DeviceFactory(name="by-key", create=ByKey, available=lambda: None, takes="FOLDER")
