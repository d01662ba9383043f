import pytest

from hwsearch.accuracy.recalibrate import recalibrate
from hwsearch.devices import load_device
from hwsearch.files import staged_folder
from hwsearch.models.agreement import probe_inputs
from hwsearch.models.artifact import MODEL, Probe, write_card, write_files
from hwsearch.models.export import to_onnx
from hwsearch.models.exported_module import ExportedModule
from hwsearch.supernets.supernet import Supernet
from hwsearch.supernets.zoo import load_family
from tests.traces import trace_once


@pytest.fixture(scope="module", autouse=True)
def _traced_once(request):
    """A module whose tests look at traces says so by ``TRACES = True``."""
    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "TRACES", False):
            trace_once(patch)
        yield


@pytest.fixture(scope="session")
def device():
    """Runs models for real, in one process for all tests."""
    device = load_device("scripted")
    yield device
    device.close()


@pytest.fixture(scope="session")
def exported_of():
    """A recalibrated subnet of a family's miniature, and its model."""
    made = {}

    def make(name, which="sample"):
        if (name, which) not in made:
            net = Supernet(name, load_family(name).tiny(), "random:0")
            space = net.space
            archs = space.sample(1, seed=3) if which == "sample" else getattr(space, which)()
            subnet = net.subnet(archs[0])
            inputs = probe_inputs(net.input_spec(archs[0]).inputs, seed=9)
            recalibrate(subnet, net.recalibrate, iter([inputs] if net.recalibrate else []))
            model = to_onnx(net, archs[0], subnet, calibration="abc")
            made[name, which] = net, ExportedModule(arch=archs[0], subnet=subnet, model=model)
        return made[name, which]

    return make


def write_artifact(folder, net, exported):
    with staged_folder(folder) as staged:
        write_files(staged, net, exported)
        spec = net.input_spec(exported.arch)
        answers = exported.module_outputs(probe_inputs(spec.inputs), spec.outputs)
        write_card(staged, net, exported, [], {}, Probe(0, answers))
    assert (folder / MODEL).is_file()
    return folder


@pytest.fixture(scope="session")
def written(exported_of, tmp_path_factory):
    """A whole artifact of a family's miniature; read it, or copy it."""
    folders = {}

    def make(name):
        if name not in folders:
            folder = tmp_path_factory.mktemp("artifact") / "subnet"
            folders[name] = write_artifact(folder, *exported_of(name))
        return folders[name]

    return make
