"""Racing: when a candidate that was scored on some images need not be scored on the others.

A candidate is compared with the best of the front's members that cost no more: if the candidate
is no better than this rival, something dominates it, and if it is better, nothing does. So there
is one comparison, however long the front is. What it decides is whether the candidate would be
dominated once scored on all images of the search, which is what the front is made by; the random
order of the images alone makes that valid, whatever the rival was chosen by.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsearch.objectives import Estimate, FloatArray

FALSE_DROPS = 0.005  # of the candidates that nothing dominates, over all looks together
LOOKS = (0.05, 0.1, 0.2, 0.35, 0.55, 0.8)  # shares of the images
LEAST_IMAGES = 50
# 1 spends in proportion to the images seen, nearly as Pocock's boundary does, and 3 nearly as
# O'Brien and Fleming's (Kim and DeMets, Biometrika 1987).
SPENDING_POWER = 1.0
_FOLDS = 5
_SHRINKAGE = 100.0  # images that equal shares of all members count for
_DOUBT = 2.0  # standard deviations


@dataclass(frozen=True, slots=True)
class Look:
    """A point of a race at which the candidate may be dropped.

    Attributes:
        count: Images seen by then.
        level: How unlikely what was seen has to be for a candidate that nothing dominates.
    """

    count: int
    level: float


def schedule(total: int) -> list[Look]:
    """Plan the looks of a race over so many images.

    The chance of dropping one that nothing dominates is spent by a function of the share of
    images seen (Lan and DeMets, "Discrete sequential boundaries for clinical trials", Biometrika
    1983). A look is tested at what it adds to the sum, which holds for any dependence between
    looks; the boundaries that take the dependence into account are little wider at half a
    percent.

    Returns:
        The looks before the last, at which all images have been seen and nothing is left to
        test; none where there are too few images.
    """
    counts = sorted({round(share * total) for share in LOOKS})
    counts = [count for count in counts if count >= LEAST_IMAGES]
    spent = [FALSE_DROPS * (count / counts[-1]) ** SPENDING_POWER for count in counts]
    levels = np.diff([0.0, *spent]).tolist()
    return [Look(count, level) for count, level in zip(counts, levels, strict=True)]


def race_order(targets: NDArray[np.generic], seed: int) -> NDArray[np.int64]:
    """Put images into a random order of which every leading part holds all classes in proportion.

    Args:
        targets: (n,) class of each; numbers that are all different give a plain random order.
        seed: The same targets and seed give the same order.

    Returns:
        (n,) indices.
    """
    rng = np.random.default_rng(seed)
    place = np.empty(len(targets))
    for target in np.unique(targets):
        rows = rng.permutation(np.flatnonzero(targets == target))
        place[rows] = (np.arange(len(rows)) + rng.random(len(rows))) / len(rows)
    return np.argsort(place, kind="stable").astype(np.int64)


def find_rival(hopeful: FloatArray, members: FloatArray, column: int) -> int | None:
    """Find the one that dominates a candidate if anything does.

    Args:
        hopeful: ``(n_objectives,)`` losses of the candidate, noisy ones at the good end of their
            interval; the raced one is not read.
        members: ``(n, n_objectives)`` losses of the front.
        column: Of the raced objective.

    Returns:
        The row of the best of those that are no worse in every other objective; None where there
        are none, so that nothing can dominate the candidate.
    """
    others = np.arange(members.shape[1]) != column
    able = np.flatnonzero((members[:, others] <= hopeful[others]).all(axis=1))
    return int(able[np.argmin(members[able, column])]) if len(able) else None


def paired_estimate(
    seen: FloatArray, members: FloatArray, means: FloatArray, total: int
) -> Estimate:
    """Estimate the mean of a candidate's outcomes over all images from those that it has seen.

    What others got on the same images predicts most of what the candidate gets, and their means
    over all images are known: the regression estimator of survey sampling (Cochran, "Sampling
    Techniques", 1977, chapter 7), with a ridge towards equal shares of all members.
    Every fifth of the images is predicted by coefficients fitted on the others (Zrnic and Candes,
    "Cross-prediction-powered inference", PNAS 2024), so that a fit to few images does not look
    better than it is.

    Args:
        seen: ``(n,)`` outcomes of the candidate, n from 10 up, in a random order of the images.
        members: ``(n, n_members)`` of others on the same images.
        means: ``(n_members,)`` over all images.
        total: Images in all, more than n.

    Returns:
        The mean, and the standard deviation of what the unseen images leave open.
    """
    n = len(seen)
    centre = members.mean(axis=1)
    target, spread = seen - centre, members - centre[:, None]
    folds = [np.arange(n) % _FOLDS == fold for fold in range(_FOLDS)]
    squares = np.array([spread[fold].T @ spread[fold] for fold in folds])
    products = np.array([spread[fold].T @ target[fold] for fold in folds])
    ridge = _SHRINKAGE * float(np.mean(spread**2)) + np.finfo(float).tiny
    residuals, mean = np.empty(n), float(means.mean())
    for fold, square, product in zip(folds, squares, products, strict=True):
        kept = squares.sum(axis=0) - square + ridge * np.eye(len(means))
        weights = np.linalg.solve(kept, products.sum(axis=0) - product)
        residuals[fold] = target[fold] - spread[fold] @ weights
        mean += float((means - means.mean()) @ weights) * float(fold.mean())
    # One more image with all the difference that there can be: equal ones are not certain.
    variance = (float(residuals.var(ddof=1)) * n + _largest_difference(seen, members) ** 2) / n
    deviation = float(np.sqrt(variance / n * (1 - n / total)))
    return Estimate(mean + float(residuals.mean()), deviation)


def chance_if_better(
    seen: FloatArray, members: FloatArray, means: FloatArray, rival: float, total: int
) -> float:
    """Return how likely it is to look that bad for one that is better than its rival, or as good.

    By Student's distribution, after one more image in the candidate's favour: what is rarely
    right is skewed, and the images that it is right on may be among the unseen.

    Args:
        seen: As for `paired_estimate`, and maximised.
        members: As there.
        means: As there.
        rival: Its mean over all images.
        total: As there.

    Returns:
        A one-sided p-value.
    """
    from scipy import special

    n, estimate = len(seen), paired_estimate(seen, members, means, total)
    favour = _largest_difference(seen, members) / n
    missing = (estimate.value + favour - rival) / estimate.deviation
    return float(special.stdtr(n - 1, missing))


def next_look(
    looks: Sequence[Look], seen: int, estimate: Estimate, rival: float, total: int
) -> Look | None:
    """Find the next look at which a candidate may be dropped, as far as one can see now.

    Each look takes a start of its own, so those that decide nothing are left out. What they might
    have spent of the level is not spent.

    Args:
        looks: Of the race.
        seen: Images seen so far.
        estimate: Of the candidate's mean, from them.
        rival: Mean of its rival.
        total: Images in all.

    Returns:
        The first look that drops it if it is two standard deviations worse than it seems; None
        where there is none.
    """
    from scipy import special

    worst = rival - estimate.value + _DOUBT * estimate.deviation
    for look in looks:
        if look.count > seen:
            left = (1 / look.count - 1 / total) / (1 / seen - 1 / total)
            if worst / (estimate.deviation * np.sqrt(left)) >= -special.ndtri(look.level):
                return look
    return None


def _largest_difference(seen: FloatArray, members: FloatArray) -> float:
    both = np.concatenate([seen, members.ravel()])
    return float(np.ptp(both)) or 1.0
