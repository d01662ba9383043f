"""Time 100,000 architectures of OFA-MobileNetV3's space: sampled, made canonical, encoded one-hot.

Run: python tools/bench_space.py (the target is 1 s on one quiet core).
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time

import numpy as np

from hwsearch.encoding import onehot
from hwsearch.space import Choice, SearchSpace

N_ARCHITECTURES = 100_000
REPEATS = 5
TARGET_S = 1.0


def ofa_mobilenetv3() -> SearchSpace:
    """Five stages of 2 to 4 blocks, each with kernel 3, 5, 7 and expansion 3, 4, 6."""
    choices = []
    for stage in range(1, 6):
        depth = f"stage{stage}.depth"
        choices.append(Choice(depth, (2, 3, 4)))
        for block in range(1, 5):
            active = (depth, tuple(range(block, 5))) if block > 2 else None
            name = f"stage{stage}.block{block}"
            choices.append(Choice(f"{name}.kernel", (3, 5, 7), active))
            choices.append(Choice(f"{name}.expand", (3, 4, 6), active))
    return SearchSpace(choices)


def time_once(space: SearchSpace, seed: int) -> tuple[float, float, float]:
    """Seconds for sampling (canonical by construction), ``from_indices`` and `onehot`."""
    start = time.perf_counter()
    archs = space.sample(N_ARCHITECTURES, seed=seed)
    sampled = time.perf_counter()
    archs = space.from_indices(archs.indices)
    canonical = time.perf_counter()
    onehot(archs)
    return sampled - start, canonical - sampled, time.perf_counter() - canonical


def main() -> None:
    """Print the best of several repeats, against the target."""
    space = ofa_mobilenetv3()
    times = np.array([time_once(space, seed) for seed in range(REPEATS)])
    sample_s, canonical_s, encode_s = times[times.sum(axis=1).argmin()]
    total_s = sample_s + canonical_s + encode_s
    verdict = "within" if total_s <= TARGET_S else "OVER"
    print(
        f"{N_ARCHITECTURES:,} of {space!r}: sample {sample_s:.3f} s + canonical "
        f"{canonical_s:.3f} s + encode {encode_s:.3f} s = {total_s:.3f} s, {verdict} the "
        f"target of {TARGET_S:g} s"
    )


if __name__ == "__main__":
    main()
