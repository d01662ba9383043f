"""What runs first in a kit, as its ``__main__``: it says what the machine lacks, then measures."""

import sys
from importlib.util import find_spec

OLDEST = (3, 10)


def lacking() -> str:
    """Say in one line what this machine lacks; nothing where it lacks nothing.

    Which runtime is needed depends on the device, and is the device's to say.
    """
    if sys.version_info < OLDEST:
        return (
            f"this kit needs Python {OLDEST[0]}.{OLDEST[1]} or later, and this is "
            f"{sys.version_info[0]}.{sys.version_info[1]}"
        )
    if find_spec("numpy") is None:
        return f"this kit needs numpy: {sys.executable} -m pip install numpy onnxruntime"
    return ""


if __name__ == "__main__":
    if lacking():
        sys.exit(f"error: {lacking()}")
    from hwsearch.kit.main import main

    sys.exit(main(sys.argv[1:]))
