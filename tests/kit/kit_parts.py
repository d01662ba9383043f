"""Kits for tests: of a miniature supernet, measured quickly or by script."""

import json
import zipfile

import pytest

import tests.run.search_parts as parts
from hwsearch.devices import MeasureSettings
from hwsearch.kit.build import write_kit
from hwsearch.kit.manifest import NAME, TABLE
from hwsearch.models.export import to_onnx
from hwsearch.supernets.zoo import load_supernet

QUICK = MeasureSettings(
    half_width=0.5,
    seconds_per_model=0.1,
    first_look=5,
    burst_s=0.002,
    warmup_floor_s=0.0,
    warmup_ceiling_s=0.1,
)
SCRIPTED = {"scripted": "hwsearch_test_plugin.scripted_device:DEVICE"}
SUBNETS = 12


def supernet():
    return load_supernet(parts.NET)


def scripted_kit(path, n=SUBNETS):
    """A kit that measures on the scripted device."""
    net = supernet()
    models = [(arch, to_onnx(net, arch)) for arch in net.space.sample_spread(n, seed=0)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hwsearch.kit.build.device_entries", lambda: SCRIPTED)
        return write_kit(net, models, path, TABLE, QUICK)


def rewritten(kit, path, change):
    """A copy of a kit in which ``change(name, content)`` gives each member's content, or None."""
    with zipfile.ZipFile(kit) as before, zipfile.ZipFile(path, "w") as after:
        for name in before.namelist():
            content = change(name, before.read(name))
            if content is not None:
                after.writestr(name, content)
    return path


def with_manifest(kit, path, change):
    """A copy of a kit whose manifest went through ``change(record)``."""

    def changed(name, content):
        if name != NAME:
            return content
        record = json.loads(content)
        change(record)
        return json.dumps(record)

    return rewritten(kit, path, changed)
