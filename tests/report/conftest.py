import pytest

from hwsearch.report.run_data import read_run_data
from tests.report.made_run import elastic_space, made_run, space_of

HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>&amp;"


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Name -> run, made once; no test changes one."""
    home = tmp_path_factory.mktemp("runs")
    return {
        "front": made_run(home / "front"),
        "other": made_run(home / "other", device="openvino:threads=1", faster=1.3),
        "bound": made_run(home / "bound", constraints=["latency <= 6"]),
        "candidates": made_run(home / "candidates", kind="candidates"),
        "unfinished": made_run(home / "unfinished", kind="unfinished"),
        "single": made_run(home / "single", kind="unfinished", measured=("latency",)),
        "elastic": made_run(
            home / "elastic", space=elastic_space(), elastic=_made_of("file model.onnx")
        ),
        "module": made_run(home / "module", elastic=_made_of("PyTorch module mine:load")),
        "hostile": made_run(
            home / f"hostile {HOSTILE.replace('/', '')}",
            supernet=HOSTILE,
            reason=HOSTILE,
            space=space_of(prefix=HOSTILE.replace("=", "")),
            warnings=[HOSTILE],
        ),
    }


def _made_of(source):
    return {"folder": "/models/mine.elastic", "source": f"{source}, SHA-256 {'a' * 64}"}


@pytest.fixture(scope="session")
def run_data(runs):
    """Name -> what a report is made of."""
    return {name: read_run_data(run) for name, run in runs.items()}
