import numpy as np
import pytest
import torch

import tests.run.search_parts as parts
from tests.traces import trace_once


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


@pytest.fixture(scope="module", autouse=True)
def _traced_once():
    with pytest.MonkeyPatch.context() as patch:
        trace_once(patch)
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


@pytest.fixture(scope="session")
def sliced_data(tmp_path_factory):
    """Random images for the network of `sliced_network`, labelled as the given model does."""
    import onnxruntime
    from sliced_network import SlicedSupernet

    rng = np.random.default_rng(0)
    network = SlicedSupernet()
    model = network.onnx_model(network.space.largest()[0]).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    arrays = {}
    for split, n in (("calibration", 40), ("search", 120), ("report", 60)):
        images = rng.standard_normal((n, 3, 8, 8)).astype(np.float32)
        labels = session.run(None, {"image": images})[0].argmax(axis=1)
        arrays |= {f"{split}.image": images, f"{split}.target": labels}
    path = tmp_path_factory.mktemp("data") / "data.npz"
    np.savez(path, **arrays)
    return f"npz:{path}"
