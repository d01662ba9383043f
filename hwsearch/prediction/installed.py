"""Installed predictors: the user's own, and those that ship with the project."""

import re
from pathlib import Path

from hwsearch.data import places
from hwsearch.errors import InputError
from hwsearch.prediction.folder import CARD
from hwsearch.prediction.predictor import Predictor
from hwsearch.space import SearchSpace

FOLDER = "predictors"


def find_predictor(supernet: str, objective: str) -> Path | None:
    """Return the folder of a predictor, the user's own before one that ships; None without."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", supernet)
    for root in places(FOLDER):
        folder = root / name / objective
        if (folder / CARD).is_file():
            return folder
    return None


def load_predictor(path: str | Path, space: SearchSpace) -> Predictor:
    """Load a predictor for the search space that it was fitted on, or a part of that.

    Raises:
        InputError: The folder holds no readable predictor, or one of another space; the text has
            the first difference.
    """
    predictor = Predictor.load(path)
    try:
        return predictor.within(space)
    except InputError as error:
        raise InputError(f"predictor {str(path)!r} is of another search space: {error}") from error
