import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True)
def _one_thread():
    """As in `Predictor.fit`: matrices of this size are many times slower on a busy machine."""
    with threadpool_limits(1, user_api="blas"):
        yield
