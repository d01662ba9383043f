"""Searches that die by SIGKILL, each at another moment.

Every moment gets a process of its own and the folder FOLDER/MOMENT.
"""

import importlib
import os
import signal
import sys
from pathlib import Path

import torch

import hwsearch
import tests.run.search_parts as parts
from tests.forked import Forked
from tests.run.warm_start_parts import FIRST, uneven

BUDGET = FIRST
# Name -> where it dies: an owner's function, in its n-th call, before or after what it does.
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


def die_at(owner, name, call, when):
    """Let this process die in the n-th call of a function."""
    module, _, of = owner.partition(":")
    place = importlib.import_module(module)
    place = getattr(place, of) if of else place
    function, calls = getattr(place, name), 0

    def dying(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(place, name, dying)


def search(folder, death, first):
    device = parts.InProcess(uneven) if first else parts.InProcess()
    hwsearch.run.setup.load_device = lambda spec: device
    hwsearch.run.finish.run_infer = lambda folder: "scripted\n"
    die_at(*death)
    budget = FIRST + 4 if first else BUDGET
    hwsearch.search(**{**parts.SETTINGS, "budget": budget}, warm_start=first, out=folder)


def kill_searches(tmp_path_factory, *first):
    """Return a folder with a killed run for every moment, started from a run if one is given."""
    folder, scratch = tmp_path_factory.mktemp("killed"), tmp_path_factory.mktemp("scratch")
    root = Path(__file__).parents[2]
    process = Forked(MAIN, folder, *first, cwd=root, TMPDIR=str(scratch))
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return folder


MAIN = "import sys; from tests.run.killed import main; main(*sys.argv[1:])"


def main(folder, first=None):
    root = Path(folder)
    torch.set_num_threads(1)
    for moment, death in (WARM_MOMENTS if first else MOMENTS).items():
        child = os.fork()
        if child == 0:
            try:
                search(root / moment, death, first)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            sys.exit(f"{moment}: ended with status {status}, not by SIGKILL")
