"""Checks of a subnet's ONNX model against the subnet in PyTorch."""

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import onnx

from hwsearch.devices import load_device
from hwsearch.devices.base import Device
from hwsearch.errors import DeviceError
from hwsearch.models.agreement import TOLERANCE, disagreement
from hwsearch.models.artifact import buffer_names
from hwsearch.models.count import count_macs, count_params
from hwsearch.models.onnx_file import read_metadata
from hwsearch.testing.subject import Case, Examined

DEVICE = "ort-cpu"
N_EXPORTED = 3


def onnx_agrees(subject: Examined) -> Iterator[str]:
    """ONNX Runtime gives the outputs that PyTorch gives, for one sample and for three."""
    with tempfile.TemporaryDirectory() as folder, closing(load_device(DEVICE)) as device:
        for case in subject.cases[:N_EXPORTED]:
            model = subject.model(case)
            onnx.checker.check_model(model, full_check=True)
            path = Path(folder) / f"{case.arch.key}.onnx"
            path.write_bytes(model.SerializeToString())
            yield from _name_problems(subject, case, model)
            yield from _answer_problems(subject, case, path, device)


def _name_problems(subject: Examined, case: Case, model: onnx.ModelProto) -> Iterator[str]:
    spec = subject.spec(case)
    promised = [tensor.name for tensor in spec.inputs], list(spec.outputs)
    found = [value.name for value in model.graph.input], [v.name for v in model.graph.output]
    if found != promised:
        yield f"{case}: its ONNX model has inputs and outputs {found}, not {promised}"


def _answer_problems(subject: Examined, case: Case, path: Path, device: Device) -> Iterator[str]:
    for n in (3, 1):
        inputs = subject.inputs(case, n)
        try:
            (outputs,) = device.run(path, [inputs])
        except DeviceError as error:
            yield (
                f"{case}: its ONNX model does not take {n} samples: {error}; let forward turn no "
                "shape into a Python number that tracing would keep (x.flatten(1), not "
                "x.view(int(n), -1))"
            )
            return
        difference = disagreement(outputs, subject.outputs(case, inputs))
        if not difference <= TOLERANCE:
            yield (
                f"{case}: for {n} samples ONNX and PyTorch differ by {difference:.2g} "
                f"({TOLERANCE:g} is allowed); let forward decide nothing by Python code that "
                "looks at tensors: the export keeps what it decided once"
            )
            return


def onnx_counts_the_same(subject: Examined) -> Iterator[str]:
    """The MACs and parameters in the ONNX model are those of the subnet."""
    for case in subject.cases[:N_EXPORTED]:
        model = subject.model(case)
        folded = int(read_metadata(model).get("params_folded", 0))
        params = count_params(model, buffer_names(subject.subnet(case))) + folded
        for quantity, counted, owed in zip(
            ("MACs", "parameters"), (count_macs(model), params), subject.costs(case), strict=True
        ):
            if counted != owed:
                yield (
                    f"{case}: its ONNX model counts {counted:,} {quantity}, its subnet {owed:,}; "
                    "weights are parameters that forward uses as they are, each once"
                )
