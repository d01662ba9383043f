"""The ``__main__`` of a kit, which checks Python's version and packages, then measures."""

import sys
from importlib.util import find_spec

OLDEST = (3, 10)


def unmet_requirement() -> str:
    """Return the requirement that this Python lacks, else ""; devices check their runtime."""
    if sys.version_info < OLDEST:
        return (
            f"this kit needs Python {OLDEST[0]}.{OLDEST[1]} or later, and this is "
            f"{sys.version_info[0]}.{sys.version_info[1]}"
        )
    if find_spec("numpy") is None:
        return f"this kit needs numpy: {sys.executable} -m pip install numpy onnxruntime"
    return ""


if __name__ == "__main__":
    if unmet_requirement():
        sys.exit(f"error: {unmet_requirement()}")
    from hwsearch.kit.main import main

    sys.exit(main(sys.argv[1:]))
