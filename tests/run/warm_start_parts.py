"""What tests of reuse are made of: a second device, and a predictor of the miniature."""

from dataclasses import replace

import hwsearch
import tests.run.search_parts as parts
from hwsearch.accuracy.task import TOP1
from hwsearch.prediction import Predictor

FIRST = 16  # trials of the run that others start from


def uneven(name, path):
    """Latencies of another device: half of the first one's, more or less."""
    return (0.05 + path.stat().st_size / 2e5) * (1 + int(name[:4], 16) % 7 / 70)


def use(patch, device):
    """Let every search measure on a device."""
    patch.setattr("hwsearch.run.setup.load_device", lambda spec: device)
    patch.setattr("hwsearch.devices.load_device", lambda spec: device)
    return device


def search(out, **settings):
    """Search the miniature; returns the run, and what was said."""
    watcher = parts.Watcher()
    given = {**parts.SETTINGS, "budget": None, **settings}
    return hwsearch.search(**given, out=out, progress=watcher), watcher.notes


def whole_rounds(run):
    """A smaller budget that cuts no round of a run short."""
    rounds = run.trials["round"]
    return int((rounds < rounds.max()).sum())


def renamed(input_spec):
    """The same task, by a metric of another name."""
    return parts.task(input_spec, replace(TOP1, name="accuracy"))


def save_predictor(folder, run, facts=None):
    """PredictionQuality a predictor to a run's accuracies, and save it as the user's own."""
    space = run.setup().net.space
    rows = run.trials[space.names].to_dict("records")
    archs = space.architectures([{k: v for k, v in row.items() if v == v} for row in rows])
    Predictor(space, "linear").fit(archs, run.trials["top1"]).save(folder, facts)


def files(folder):
    """Every file's content, by its path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
