"""Hypervolume gain of a front by one more point."""

import itertools

import numpy as np

from hwsearch.objectives import FloatArray, is_non_dominated


def hypervolume_gain(points: FloatArray, front: FloatArray, reference: FloatArray) -> FloatArray:
    """Return the gain in hypervolume by each point alone: ``(n,)``.

    In two dimensions the free region is cut into vertical strips; in more, the last objective is
    cut into slabs, within each of which the points of the front that reach it leave the same
    problem with one objective less. Losses are minimised; points beyond the reference gain 0, and
    dominated rows of the front do not matter.
    """
    inside = front[(front < reference).all(axis=1)]
    inside = np.unique(inside[is_non_dominated(inside)], axis=0)
    return _gain(np.minimum(points, reference), inside, reference)


def _gain(points: FloatArray, front: FloatArray, reference: FloatArray) -> FloatArray:
    if points.shape[1] == 1:
        best = front[:, 0].min(initial=reference[0])
        length: FloatArray = np.maximum(best - points[:, 0], 0.0)
        return length
    if points.shape[1] == 2:
        return _gain_in_plane(points, front, reference)
    front = front[np.argsort(front[:, -1], kind="stable")]
    cuts = np.concatenate([[-np.inf], front[:, -1], reference[-1:]])
    total = np.zeros(len(points))
    for n_below, (low, high) in enumerate(itertools.pairwise(cuts)):
        height = high - np.maximum(points[:, -1], low)
        reaching = np.flatnonzero(height > 0)
        if low == high or not len(reaching):
            continue
        below = front[:n_below, :-1]
        below = below[is_non_dominated(below)]
        area = _gain(points[reaching, :-1], below, reference[:-1])
        total[reaching] += height[reaching] * area
    return total


def _gain_in_plane(points: FloatArray, front: FloatArray, reference: FloatArray) -> FloatArray:
    """Return the gains for two objectives and a front without dominated points."""
    order = np.lexsort((front[:, 1], front[:, 0]))
    x = np.concatenate([[-np.inf], front[order, 0], reference[:1]])
    tops = np.concatenate([reference[1:], front[order, 1]])
    widths = x[1:] - np.maximum(points[:, :1], x[:-1])
    heights = tops - points[:, 1:]
    gain: FloatArray = (np.maximum(widths, 0.0) * np.maximum(heights, 0.0)).sum(axis=1)
    return gain
