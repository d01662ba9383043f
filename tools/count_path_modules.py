"""Count the modules that one architecture passes from its proposal to its shipped file.

    python tools/count_path_modules.py

Runs a search of budget 1 on the bundled supernet under `sys.setprofile`. A module of hwsearch
counts when one of its functions is called in this process with an architecture, a batch of
architectures, a network, an ONNX model, or the path of one among its arguments, alone or in a
list, tuple, set or mapping; before the search begins nothing counts. Functions that are only
defined in a module and run in another process (timing, scoring) do not count.
"""

import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import onnx
from torch import nn

import hwsearch
from hwsearch.models.exported import Exported
from hwsearch.optimizer import Optimizer
from hwsearch.space import Architecture, Architectures

IN_HAND = (Architecture, Architectures, onnx.ModelProto, nn.Module, Exported)


def holds(value: object) -> bool:
    """Return whether a value is an architecture or a model of one, or directly holds one."""
    if isinstance(value, IN_HAND):
        return True
    if isinstance(value, Path):
        return value.suffix == ".onnx"
    if isinstance(value, dict):
        return any(isinstance(each, IN_HAND) for pair in value.items() for each in pair)
    if isinstance(value, list | tuple | set):
        return any(isinstance(each, IN_HAND) for each in value)
    return False


def main() -> None:
    """Print the number of modules, and each with how many calls counted."""
    passed: Counter[str] = Counter()

    def called(frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_globals.get("__name__", "")
        if event != "call" or not name.startswith("hwsearch"):
            return
        code = frame.f_code
        n_arguments = code.co_argcount + code.co_kwonlyargcount
        if any(holds(frame.f_locals.get(each)) for each in code.co_varnames[:n_arguments]):
            passed[name] += 1

    ask = Optimizer.ask

    def asked(self: Optimizer, n: int | None = None) -> Architectures:
        archs = ask(self, n)
        sys.setprofile(called)
        return archs

    Optimizer.ask = asked  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        hwsearch.search(budget=1, prior="off", out=Path(folder) / "run")
    sys.setprofile(None)
    print(f"{len(passed)} modules of hwsearch are passed by one architecture")
    for name, calls in sorted(passed.items()):
        print(f"  {name:40} {calls:6} calls")


if __name__ == "__main__":
    main()
