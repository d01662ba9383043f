"""Thread limit of linear algebra."""

from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]


def one_blas_thread() -> AbstractContextManager[Any]:
    """Limit linear algebra to one thread within a ``with`` statement.

    Matrices of a search are small: threads cost more than they save, and could change the last
    bit of a result.
    """
    limit: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return limit


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401  # whose libraries the controller has to find

    return ThreadpoolController()  # looking for the libraries takes milliseconds
