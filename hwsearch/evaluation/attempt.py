"""Steps that fail one trial: their results, or the errors of them."""

from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

from hwsearch.errors import DataError, EvaluationError
from hwsearch.files import DISK_ERRNOS

P = ParamSpec("P")
T = TypeVar("T")
K = TypeVar("K")


def attempt(step: Callable[P, T], *args: P.args, **named: P.kwargs) -> T | EvaluationError:
    """Return the result of a step, or the error that fails the trial; a family may raise any.

    Unreadable samples (`DataError`) and a full or read-only disk (`OSError`) are raised: they are
    not the trial's fault.
    """
    try:
        return step(*args, **named)
    except EvaluationError as error:
        return error
    except DataError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRNOS:
            raise
        failure = EvaluationError(f"{type(error).__name__}: {error}")
        failure.__cause__ = error
        return failure


def raised(result: T | EvaluationError) -> T:
    """Return a result; raise it if it is an error."""
    if isinstance(result, EvaluationError):
        raise result
    return result


def successes(
    results: Mapping[K, T | EvaluationError], failed: dict[K, EvaluationError]
) -> dict[K, T]:
    """Return the results that are no errors; add the errors to ``failed``."""
    failed |= {key: each for key, each in results.items() if isinstance(each, EvaluationError)}
    return {key: each for key, each in results.items() if not isinstance(each, EvaluationError)}
