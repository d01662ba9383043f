"""Checks of a subnet's ONNX model against the subnet in PyTorch."""

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import onnx

from hwsearch.devices import load_device
from hwsearch.devices.base import Device
from hwsearch.errors import DeviceError
from hwsearch.models.agreement import (
    TOLERANCE,
    count_macs,
    count_params,
    disagreement,
)
from hwsearch.models.exported_module import buffer_names
from hwsearch.models.onnx_file import read_metadata
from hwsearch.testing.subject import Case, Examined, for_each

DEVICE = "ort-cpu"
N_EXPORTED = 3


def onnx_agrees(subject: Examined) -> Iterator[str]:
    """ONNX Runtime gives the outputs that PyTorch gives, for one sample and for three."""
    with tempfile.TemporaryDirectory() as folder, closing(load_device(DEVICE)) as device:
        for case in subject.cases[:N_EXPORTED]:
            onnx.checker.check_model(case.model, full_check=True)
            path = Path(folder) / f"{case.arch.key}.onnx"
            path.write_bytes(case.model.SerializeToString())
            graph, spec = case.model.graph, case.spec
            promised = [tensor.name for tensor in spec.inputs], list(spec.outputs)
            found = [value.name for value in graph.input], [v.name for v in graph.output]
            if found != promised:
                yield f"{case}: its ONNX model has inputs and outputs {found}, not {promised}"
            if problem := _answer_problem(case, path, device):
                yield f"{case}: {problem}"


def _answer_problem(case: Case, path: Path, device: Device) -> str | None:
    for n in (3, 1):
        inputs = case.inputs(n)
        try:
            (outputs,) = device.run(path, [inputs])
        except DeviceError as error:
            return (
                f"its ONNX model does not take {n} samples: {error}; let forward turn no shape "
                "into a Python number that tracing would keep (x.flatten(1), not "
                "x.view(int(n), -1))"
            )
        difference = disagreement(outputs, case.outputs(inputs))
        if not difference <= TOLERANCE:
            return (
                f"for {n} samples ONNX and PyTorch differ by {difference:.2g} ({TOLERANCE:g} is "
                "allowed); let forward decide nothing by Python code that looks at tensors: the "
                "export keeps what it decided once"
            )
    return None


@for_each(lambda subject: subject.cases[:N_EXPORTED])
def onnx_counts_the_same(case: Case) -> Iterator[str]:
    """The MACs and parameters in the ONNX model are those of the subnet."""
    folded = int(read_metadata(case.model).get("params_folded", 0))
    params = count_params(case.model, buffer_names(case.subnet)) + folded
    counts = (count_macs(case.model), params)
    for quantity, counted, owed in zip(("MACs", "parameters"), counts, case.costs, strict=True):
        if counted != owed:
            yield (
                f"its ONNX model counts {counted:,} {quantity}, its subnet {owed:,}; weights are "
                "parameters that forward uses as they are, each once"
            )
