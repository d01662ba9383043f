"""Strength of the ridge in least squares on samples."""


def ridge_of(rows: int, columns: int) -> float:
    """Return the ridge, relative to the mean variance of a column."""
    return 0.03 if columns else rows * 0.0
