"""Try many examples of everything that may be given to hwsearch: `tests.abuse.properties`.

Run: python tools/fuzz.py --examples 2000 (--only table --only card for some of them). Prints a
line for each kind: how many examples were tried, how many of them were taken and how many refused
by a clear error. Anything else that comes out is shown, and fails.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HWSEARCH_HOME"] = tempfile.mkdtemp(prefix="hwsearch-fuzz-home-")
os.environ["HWSEARCH_CACHE"] = tempfile.mkdtemp(prefix="hwsearch-fuzz-cache-")

import clone  # noqa: F401  # before `tests`
from hypothesis import seed

from tests.abuse.properties import PROPERTIES, attempts


def fuzz(name: str, examples: int, start: int) -> tuple[Counter[str], BaseException | None]:
    """Try examples of one kind; return what came of them, and what must not have come."""
    found: Counter[str] = Counter()
    try:
        seed(start)(attempts(name, found, max_examples=examples, database=None))()
    except BaseException as error:  # noqa: BLE001 - that is what is looked for
        return found, error
    return found, None


def main() -> int:
    """Print the table; return how many kinds failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=PROPERTIES)
    given_ = parser.parse_args()
    print(f"{'kind':20} {'tried':>7} {'taken':>7} {'refused':>7} {'seconds':>8}")
    total, failures = 0, 0
    for name in given_.only or PROPERTIES:
        began = time.monotonic()
        found, error = fuzz(name, given_.examples, given_.seed)
        counts = " ".join(f"{found[what]:7,}" for what in ("tried", "taken", "refused"))
        print(f"{name:20} {counts} {time.monotonic() - began:8.1f}", flush=True)
        total += found["tried"]
        if error is not None:
            failures += 1
            text = "\n".join(
                [f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])]
            )
            print(f"    {text[:1500]}", flush=True)
    print(f"{total:,} examples, {failures} of the kinds failed")
    return failures


if __name__ == "__main__":
    sys.exit(main())
