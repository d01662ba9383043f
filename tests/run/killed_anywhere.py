"""Work that dies by SIGKILL at random moments.

``PYTHONPATH=tests/plugin python -m tests.run.killed_anywhere FOLDER``, from the root of the clone.

Searches, exports, reports and table building are each killed after a random share of the time
that they take, gone on with, and compared with what was never killed. Prints a table, a line for
each kill. Device and accuracies are scripted. Everything is forked from one process, so that the
libraries are loaded only once.
"""

import argparse
import json
import os
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import torch

import hwsearch

# Loaded before any fork.
import hwsearch.optimizer.acquisition
import hwsearch.optimizer.posterior
import hwsearch.run.search
import tests.run.search_parts as parts
from hwsearch.kit.results import read_results
from hwsearch.report.write import write_report
from hwsearch.run import profile
from hwsearch.run.outcome import damaged_files
from hwsearch.run.profile import make_table
from hwsearch.tables import LatencyTable
from tests.run.profiled_device import MINIATURE, Profiled

BUDGET = 16
TIMED = ("trials.sqlite", "SHA256SUMS", "report.html")
KINDS = {"search": 26, "export": 8, "report": 8, "table": 8}  # kind -> how many kills
COLUMNS = ("kind", "killed after s", "phase", "trials", "kept", "integrity", "equal", "again")
WIDTHS = (7, 14, 9, 6, 5, 9, 5, 5)


class Telling(parts.Watcher):
    """Leaves the name of the phase in a file."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def phase(self, name, total, done=0):
        self.path.write_text(name)


class Search:
    """A run: resumed it has the trials, measurements and files of the unbroken one."""

    def __init__(self, root):
        self.unbroken = root / "unbroken"

    def start(self, folder, progress):
        hwsearch.search(**{**parts.SETTINGS, "budget": BUDGET}, out=folder, progress=progress)

    def check(self, folder, progress):
        began = (folder / "config.toml").is_file()
        before = stored(folder) if (folder / "trials.sqlite").is_file() else ("none yet", [], {})
        device = use_device()
        if began:
            run = hwsearch.resume(folder, progress=progress)
        else:
            self.start(folder, progress)
            run = hwsearch.Run(folder)
        sound, trials, measured = stored(folder)
        equal = (trials, measured) == stored(self.unbroken)[1:] and sound == "ok"
        equal &= contents(folder) == contents(self.unbroken) and damaged_files(folder) == {}
        equal &= (folder / "report.html").is_file()
        equal &= before[2].items() <= measured.items()
        timed = {key for key, quantity, _, purpose in before[2] if quantity == "latency"}
        bridges = {key for key, _, _, purpose in measured if purpose == "bridge"}
        searched = {key for phase, key in device.timed if phase == "search"} - bridges
        return {
            "trials": len(before[1]),
            "kept": len(before[2]),
            "integrity": before[0],
            "equal": bool(equal and run.finished),
            "again": len(timed & searched),
        }


class Export:
    """Copies of a run's subnets: under its own name each is complete."""

    def __init__(self, root):
        self.run = root / "unbroken"

    def start(self, folder, progress):
        progress.phase("export", 1)
        hwsearch.Run(self.run).export("all", folder)

    def check(self, folder, progress):
        whole = contents(self.run / "subnets")
        there = contents(folder)
        kept = {name.split("/")[0] for name in there}
        complete = all(
            {n: c for n, c in there.items() if n.startswith(f"{key}/")}
            == {n: c for n, c in whole.items() if n.startswith(f"{key}/")}
            for key in kept
        )
        sound = damaged_files(self.run) == {}
        shutil.rmtree(folder, ignore_errors=True)
        self.start(folder, progress)
        return {
            "trials": "",
            "kept": len(kept),
            "integrity": "ok" if sound and complete else "damaged",
            "equal": contents(folder) == whole,
            "again": 0,
        }


class Report:
    """The page of a run: whole or not there, and the run is as it was."""

    def __init__(self, root):
        self.run = root / "unbroken"

    def start(self, folder, progress):
        progress.phase("report", 1)
        write_report([hwsearch.Run(self.run)], folder / "page.html")

    def check(self, folder, progress):
        pages = sorted(folder.glob("[!.]*.html"))
        complete = all(page.read_text().rstrip().endswith("</html>") for page in pages)
        sound = damaged_files(self.run) == {}
        whole, again = folder.with_name(f"{folder.name}-whole"), contents(folder)
        self.start(whole, progress)
        self.start(folder, progress)
        equal = contents(folder) == contents(whole)
        return {
            "trials": "",
            "kept": len(again),
            "integrity": "ok" if sound and complete else "damaged",
            "equal": equal and again.items() <= contents(whole).items(),
            "again": 0,
        }


class Table:
    """A latency table: gone on with it is that of the unbroken one."""

    def __init__(self, root):
        self.unbroken = root / "unbroken.json"
        make_table(MINIATURE, Profiled(), self.unbroken)

    def start(self, folder, progress):
        make_table(MINIATURE, Profiled(), folder / "table.json", progress=progress)

    def check(self, folder, progress):
        path, partial = folder / "table.json", folder / "table.json.partial"
        noted = set(read_results(partial)[1].latencies) if partial.is_file() else set()
        whole = not path.is_file() or LatencyTable.load(path) is not None
        device = Profiled()
        made = make_table(MINIATURE, device, path, progress=progress)
        return {
            "trials": "",
            "kept": len(noted),
            "integrity": "ok" if whole else "damaged",
            "equal": made == LatencyTable.load(self.unbroken) and not partial.exists(),
            "again": len(noted & set(device.measured)),
        }


def use_device():
    device = parts.InProcess()
    hwsearch.run.setup.load_device = lambda spec: device
    hwsearch.devices.load_device = lambda spec: device
    return device


def stored(folder):
    """What the store says of itself, its trials, and measurements without what they cost."""
    connection = sqlite3.connect(folder / "trials.sqlite")
    try:
        (sound,) = connection.execute("PRAGMA integrity_check").fetchone()
        trials = connection.execute("SELECT * FROM trials ORDER BY number").fetchall()
        rows = connection.execute(
            "SELECT key, quantity, context, purpose, value, low, high, count, samples "
            "FROM measurements"
        ).fetchall()
    finally:
        connection.close()
    return sound, trials, {row[:4]: row[4:] for row in rows}


def contents(folder):
    """Files that do not say how long things took, by name; what is staged is hidden."""
    found = [p.relative_to(folder) for p in folder.rglob("*") if p.is_file()]
    shown = [p for p in found if not any(part.startswith(".") for part in p.parts)]
    timed = (
        "trials.sqlite",
        "trials.sqlite-wal",
        "trials.sqlite-shm",
        "SHA256SUMS",
        "report.html",
    )
    return {p.as_posix(): (folder / p).read_bytes() for p in shown if p.name not in timed}


def forked(work, kill_after=None):
    """Do work in a process of its own; return its status, or None where it was killed."""
    child = os.fork()
    if child == 0:
        try:
            use_device()
            work()
        except BaseException:  # noqa: BLE001 - whatever it is, it ends here
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    ends = time.monotonic() + (kill_after if kill_after is not None else 600)
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def kill_once(kind, subject, folder, lasts, rng):
    """Kill work and go on with it; return the line of the table."""
    said, verdict = folder.with_name(f"{folder.name}.phase"), folder.with_name("verdict.json")
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        said.write_text("beginning")
        delay = float(rng.uniform(0, lasts))
        if forked(lambda: subject.start(folder, Telling(said)), delay) is None:
            break
        lasts = delay  # it was done before: the machine is faster now
    phase = said.read_text()

    def check():
        verdict.write_text(json.dumps(subject.check(folder, Telling(said))))

    if forked(check) != 0:
        sys.exit(f"{kind} killed after {delay:.3f} s, in {phase}: it does not go on")
    return {"kind": kind, "killed after s": f"{delay:.3f}", "phase": phase} | json.loads(
        verdict.read_text()
    )


def main(root, kills, seed):
    torch.set_num_threads(1)
    profile.VALIDATING, profile.GROUP_SIZE = 4, 4
    hwsearch.run.finish.run_infer = lambda folder: "scripted\n"
    hwsearch.verify.subnet.run_infer = lambda folder: "scripted\n"
    rng = np.random.default_rng(seed)
    if forked(lambda: Search(root).start(root / "unbroken", parts.Watcher())) != 0:
        sys.exit("the unbroken search fails")
    print("  ".join(f"{name:>{width}}" for name, width in zip(COLUMNS, WIDTHS, strict=True)))
    bad = 0
    for (kind, n), subject in zip(
        kills.items(), (Search(root), Export(root), Report(root), Table(root)), strict=True
    ):
        began, first = time.monotonic(), root / f"{kind}-whole"
        if forked(lambda s=subject, to=first: s.start(to, parts.Watcher())) != 0:
            sys.exit(f"{kind} fails without being killed")
        lasts = time.monotonic() - began
        for number in range(n):
            line = kill_once(kind, subject, root / f"{kind}-{number}", lasts, rng)
            cells = ("yes" if line[name] is True else str(line[name]) for name in COLUMNS)
            print("  ".join(f"{c:>{w}}" for c, w in zip(cells, WIDTHS, strict=True)), flush=True)
            sound = line["integrity"] in ("ok", "none yet")
            bad += not (sound and line["equal"] is True and line["again"] == 0)
    total = sum(kills.values())
    print(f"{total - bad} of {total} kills left nothing lost, damaged or done twice")
    return bad


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    for name, default in KINDS.items():
        parser.add_argument(f"--{name}", type=int, default=default, help="how many kills")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    chosen = {name: getattr(given, name) for name in KINDS}
    sys.exit(1 if main(given.folder, chosen, given.seed) else 0)
