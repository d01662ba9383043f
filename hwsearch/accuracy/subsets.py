"""Evenly spaced subsets of a split."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.answered_samples import stored
from hwsearch.accuracy.images import ImageSamples
from hwsearch.accuracy.task import Samples, SplitSamples


def spread_rows(n: int, most: int) -> NDArray[np.int64]:
    """Return up to ``most`` evenly spaced indices of n samples."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))


def spread(samples: SplitSamples, most: int) -> SplitSamples:
    """Return up to ``most`` evenly spaced samples, without answers.

    Samples of image folders are in the order of their classes, so that the first ones are of few
    classes. Other kinds of samples than arrays and image files come back whole.
    """
    samples, rows = stored(samples), spread_rows(len(samples), most)
    if len(rows) == len(samples):
        return samples
    if isinstance(samples, ImageSamples):
        paths, targets = [samples.paths[row] for row in rows], samples.targets[rows]
        return ImageSamples(samples.root, paths, targets, samples.spec, samples.cache)
    if isinstance(samples, Samples):
        inputs = {name: array[rows] for name, array in samples.inputs.items()}
        return replace(samples, inputs=inputs, targets=samples.targets[rows])
    return samples
