"""What tests of reuse are made of: a second device, and a predictor of the miniature."""

from dataclasses import replace

import hwsearch
import tests.run.search_parts as parts
from hwsearch.accuracy.metric import TOP1
from hwsearch.prediction import Predictor
from tests.run.search_parts import FIRST, use

__all__ = ["FIRST", "use"]


def uneven(name, path):
    """Latencies of another device: half of the first one's, more or less."""
    return (0.05 + path.stat().st_size / 2e5) * (1 + int(name[:4], 16) % 7 / 70)


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
