"""What searches leave that die by SIGKILL, each at another moment.

That are the files as they are then: at every moment the folder of one search is copied.
"""

import importlib
import shutil

import pytest

import tests.run.search_parts as parts
from tests.run.warm_start_parts import FIRST, uneven

BUDGET = FIRST
# Name -> the moment: an owner's function, its n-th call, before or after what it does.
MOMENTS = {
    "beginning": ("hwsearch.run.search", "write_config", 1, "after"),
    "proposed": ("hwsearch.trial_store:Store", "propose", 1, "after"),
    "started": ("hwsearch.trial_store:Store", "start", 6, "after"),
    "scoring": ("hwsearch.trial_store:Store", "add_all", 13, "after"),
    "timing": ("tests.run.search_parts:InProcess", "measure", 3, "after"),
    "finishing": ("hwsearch.trial_store:Store", "finish", 11, "after"),
    "between-rounds": ("hwsearch.optimizer:Optimizer", "tell", 3, "after"),
    "confirming": ("tests.run.search_parts:InProcess", "measure", 5, "after"),
    "confirmed": ("hwsearch.evaluation.evaluator:Evaluator", "confirm_latencies", 1, "after"),
    "exporting": ("hwsearch.run.finish", "write_card", 2, "before"),
    "exported": ("hwsearch.run.outcome", "write_checksums", 1, "before"),
}
# The same for searches that start from a run.
WARM_MOMENTS = {
    "beginning": ("hwsearch.run.search", "write_config", 1, "after"),
    "copying": ("hwsearch.trial_store:Store", "propose", 1, "after"),
    "copied": ("hwsearch.run.value_sources.base:ValueSource", "copy_to", 1, "after"),
    "timing": ("tests.run.search_parts:InProcess", "measure", 2, "after"),
    "timed": ("hwsearch.trial_store:Store", "add_all", 3, "after"),
    "finishing": ("hwsearch.trial_store:Store", "finish", 5, "after"),
    "searching": ("hwsearch.trial_store:Store", "propose", 2, "after"),
    "exporting": ("hwsearch.run.finish", "write_card", 2, "before"),
}


def kill_searches(tmp_path_factory, first=None):
    """Return a folder with a killed run for every moment, started from a run if one is given."""
    root, run = tmp_path_factory.mktemp("killed"), tmp_path_factory.mktemp("search") / "run"
    moments = WARM_MOMENTS if first else MOMENTS
    with pytest.MonkeyPatch.context() as patch:
        for moment, place in moments.items():
            _copy_at(patch, *place, run, root / moment)
        device = parts.InProcess(uneven) if first else parts.InProcess()
        budget = FIRST + 4 if first else BUDGET
        parts.finished_search(run, device, budget=budget, warm_start=first)
    assert {path.name for path in root.iterdir()} == set(moments)
    return root


def _copy_at(patch, owner, name, call, when, run, copy):
    """Let a run be copied in the n-th call of a function."""
    module, _, of = owner.partition(":")
    place = importlib.import_module(module)
    place = getattr(place, of) if of else place
    function, calls = getattr(place, name), 0

    def copying(*args, **kwargs):
        nonlocal calls
        calls += 1
        now = calls == call
        if now and when == "before":
            shutil.copytree(run, copy)
        result = function(*args, **kwargs)
        if now and when == "after":
            shutil.copytree(run, copy)
        return result

    patch.setattr(place, name, copying)
