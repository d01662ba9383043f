"""What a batch of architectures keeps of a structure, as arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Selections:
    """What each of n architectures keeps.

    Attributes:
        units: (n, groups): numbers of kept units, in the order of the structure's groups.
        dropped: (n, parts): whether a layer or branch is left out, in the order of
            `hwsearch.elastic.analysis.liveness.removables`.
        sizes: (n,): position of the input size among those of the search space.
    """

    units: NDArray[np.int64]
    dropped: NDArray[np.bool_]
    sizes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.units)
