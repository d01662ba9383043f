"""Print the time of layers by their width: which steps of channels a device turns into time.

    python tools/bench_width_steps.py [--device ort-cpu:threads=1]

Two 3 x 3 convolutions of 14 x 14 pixels, or two matrix products of 128 rows, have so many channels
between them: what a width of an elastic model changes. Times are relative to the widest.
"""

import argparse

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import hwsearch

OUTER, WIDTHS = 128, range(64, 129, 4)
STEPS = (4, 8, 16, 32)


def main() -> None:
    """Measure both kinds of layers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="ort-cpu:threads=1")
    args = parser.parse_args()
    for kind, model in (("convolutions", convolutions), ("matrix products", products)):
        found = hwsearch.measure([model(width) for width in WIDTHS], args.device)
        times = dict(zip(WIDTHS, found["ratio"] / found["ratio"].iloc[-1], strict=True))
        half = float((found["ratio_high"] / found["ratio_low"]).max() - 1) / 2
        print(f"{kind}, within {half:.1%}")
        print("  " + ", ".join(f"{width}: {time:.3f}" for width, time in times.items()))
        for step in STEPS:
            print(f"  steps of {step}: {worth(times, step):.0%} of them take less time")


def worth(times: dict[int, float], step: int) -> float:
    """Return the share of steps that save at least half of what channels cost on average."""
    first, last = min(times), max(times)
    each = (times[last] - times[first]) / (last - first)
    saved = [times[w] - times[w - step] for w in range(first + step, last + 1, step)]
    return float(np.mean([s >= each * step / 2 for s in saved]))


def convolutions(width: int) -> onnx.ModelProto:
    """Return a model of two convolutions."""
    shapes = (width, OUTER, 3, 3), (OUTER, width, 3, 3)
    return _chain("Conv", shapes, (1, OUTER, 14, 14), pads=[1, 1, 1, 1])


def products(width: int) -> onnx.ModelProto:
    """Return a model of two matrix products."""
    return _chain("MatMul", ((OUTER, width), (width, OUTER)), (1, 128, OUTER))


def _chain(
    op: str, shapes: tuple[tuple[int, ...], ...], values: tuple[int, ...], **attributes: list[int]
) -> onnx.ModelProto:
    rng, nodes, weights, last = np.random.default_rng(0), [], [], "x"
    for number, shape in enumerate(shapes):
        array = rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))
        weights.append(numpy_helper.from_array(array, f"w{number}"))
        nodes += [
            helper.make_node(op, [last, f"w{number}"], [f"y{number}"], **attributes),
            helper.make_node("Relu", [f"y{number}"], [f"z{number}"]),
        ]
        last = f"z{number}"
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, values) for n in ("x", last)]
    graph = helper.make_graph(nodes, f"{op}-{shapes[0]}", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


if __name__ == "__main__":
    main()
