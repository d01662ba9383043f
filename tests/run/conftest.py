import pytest
import torch

import tests.run.search_parts as parts


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """The same sums in every process that takes part in a test."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def _undrawn(request):
    """Pictures and pages are placeholders: drawing them takes longer than a short search.

    A module whose tests look at them says so by ``DRAWN = True``.
    """
    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "DRAWN", False):
            parts.leave_undrawn(patch)
        yield


@pytest.fixture
def device(monkeypatch):
    """Answers for every device that is asked for, and starts no process."""
    return parts.use(monkeypatch, parts.InProcess())


@pytest.fixture
def quick_infer(monkeypatch):
    """`infer.py` is not run: each time it loads a runtime in a process of its own."""
    for module in ("hwsearch.run.finish", "hwsearch.verify.subnet"):
        monkeypatch.setattr(f"{module}.run_infer", lambda folder: "scripted\n")


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory):
    """A run of `SHORT` settings; its confirmation repeats the search. Only copies are changed."""
    return parts.finished_search(tmp_path_factory.mktemp("short") / "run", **parts.SHORT)


@pytest.fixture(scope="session")
def first(tmp_path_factory):
    """A run of `FIRST` trials, that others start from. Only copies are changed."""
    return parts.finished_search(tmp_path_factory.mktemp("first") / "run", budget=parts.FIRST)
