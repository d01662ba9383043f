"""The ``__main__`` of the measuring code, which checks Python's version and packages first."""

import sys
from importlib.util import find_spec
from pathlib import Path

OLDEST = (3, 10)
SERVE = "--serve"  # the only argument where another machine starts it through ssh


def unmet_requirement() -> str:
    """Return the requirement that this Python lacks, else ""; devices check their runtime."""
    if sys.version_info < OLDEST:
        return (
            f"Python {OLDEST[0]}.{OLDEST[1]} or later is needed, and {sys.executable} is "
            f"{sys.version_info[0]}.{sys.version_info[1]}"
        )
    if find_spec("numpy") is None:
        return f"numpy is needed: {sys.executable} -m pip install numpy onnxruntime"
    return ""


if __name__ == "__main__":
    if unmet_requirement():
        sys.exit(f"error: {unmet_requirement()}")
    if sys.argv[1:] == [SERVE]:
        from hwsearch.kit.server import main as serve

        serve(Path(sys.argv[0]))
    from hwsearch.kit.main import main

    sys.exit(main(sys.argv[1:]))
