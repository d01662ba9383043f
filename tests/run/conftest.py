import pytest
import torch

import hwsearch
import tests.run.search_parts as parts


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """The same sums in every process that takes part in a test."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def device(monkeypatch):
    """Answers for every device that is asked for, and starts no process."""
    device = parts.InProcess()
    monkeypatch.setattr("hwsearch.run.setup.load_device", lambda spec: device)
    monkeypatch.setattr("hwsearch.devices.load_device", lambda spec: device)
    return device


@pytest.fixture
def quick_infer(monkeypatch):
    """`infer.py` is not run: each time it loads a runtime in a process of its own."""
    for module in ("hwsearch.run.finish", "hwsearch.verify.subnet"):
        monkeypatch.setattr(f"{module}.run_infer", lambda folder: "scripted\n")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A run of `SHORT` settings that nothing disturbs; its confirmation repeats the search."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hwsearch.run.setup.load_device", lambda spec: parts.InProcess())
        patch.setattr("hwsearch.run.finish.run_infer", lambda folder: "scripted\n")
        return hwsearch.search(**parts.SHORT, out=tmp_path_factory.mktemp("unbroken") / "run")
