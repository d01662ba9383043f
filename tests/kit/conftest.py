import pytest

import hwsearch
import tests.run.search_parts as parts
from hwsearch.devices import load_device
from tests.devices import tiny_models
from tests.kit import bare, kit_parts


@pytest.fixture(scope="session", autouse=True)
def _known_baselines(tmp_path_factory):
    """Processes find what anchors take: measuring it there would take seconds."""
    folder = tmp_path_factory.mktemp("baselines")
    for precision in ("fp32", "int8"):
        device = load_device(f"ort-cpu:threads=1,precision={precision}")
        model = tiny_models.conv(folder / f"{precision}.onnx", precision=precision)
        device.measure({"a": model}, seed=0, settings=kit_parts.QUICK)
        device.close()


@pytest.fixture(scope="session")
def python(tmp_path_factory):
    """A Python with numpy and onnxruntime alone."""
    return bare.make_python(tmp_path_factory.mktemp("bare") / "env")


@pytest.fixture(scope="session")
def real_kit(tmp_path_factory):
    """A kit as anybody makes one, of few models that are measured quickly."""
    path = tmp_path_factory.mktemp("kit") / "kit.pyz"
    hwsearch.make_kit(parts.NET, path, subnets=8, settings=kit_parts.QUICK)
    return path


@pytest.fixture(scope="session")
def scripted_kit(tmp_path_factory):
    """A kit that measures by script."""
    path = tmp_path_factory.mktemp("scripted") / "kit.pyz"
    kit_parts.scripted_kit(path)
    return path
