"""The bundled network's largest subnet as a plain ONNX model, made elastic, and its scores."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

import hwsearch
from hwsearch.evaluation.build import Builder
from hwsearch.space import Architecture, Architectures
from hwsearch.supernets.supernet import Supernet

SOURCE = "cifar10-resnet"
DRAWN, SCORED = 500, 300  # calibration samples of a seed; images of the search
SHARES = np.arange(0.45, 0.95, 0.075)  # of the widths that uniform cuts keep

Array = NDArray[Any]


class Results:
    """Results by name in a file of JSON lines, each computed once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self._known: dict[str, Any] = dict(json.loads(line) for line in lines)

    def get(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return a result, computed and kept if it is not known."""
        if name not in self._known:
            self._known[name] = compute()
            with self._path.open("a") as file:
                file.write(json.dumps([name, self._known[name]]) + "\n")
        return self._known[name]


@dataclass(frozen=True, slots=True)
class Bundled:
    """An elastic model of the bundled network, and the images that its subnets are scored on.

    Attributes:
        report: Inputs and labels that nothing is selected by.
        searched: Inputs of the search.
        given: Log probabilities of the given model for them.
        calibration: Batches that refine.
    """

    net: Supernet
    results: Results
    input: str
    report: tuple[Array, Array]
    searched: Array
    given: Array
    calibration: list[dict[str, Array]]

    @property
    def whole(self) -> Architecture:
        """Return the architecture of the given model."""
        return self.net.space.largest()[0]

    def share(self, archs: Architectures) -> Array:
        """Return MACs as shares of the given model's: (n,)."""
        whole = self.net.exact("macs", self.net.space.largest())[0]
        return np.asarray(self.net.exact("macs", archs) / whole)

    def top1(self, arch: Architecture, *, refined: bool) -> float:
        """Return top-1 on the report images, in percent."""

        def compute() -> float:
            model = (
                self.net.refined_model(arch, self.calibration)
                if refined
                else hwsearch.to_onnx(self.net, arch)
            )
            scores = outputs(model, self.input, self.report[0])
            return float((scores.argmax(axis=1) == self.report[1]).mean() * 100)

        return float(self.results.get(f"top1 {arch.key} {refined}", compute))

    def divergence(self, arch: Architecture) -> float:
        """Return the mean KL divergence from the given model's classes, in nats."""

        def compute() -> float:
            own = outputs(hwsearch.to_onnx(self.net, arch), self.input, self.searched)
            given = self.given
            return float((np.exp(given) * (given - log_softmax(own))).sum(axis=1).mean())

        return float(self.results.get(f"kl {arch.key}", compute))

    def uniform(self) -> Architectures:
        """Return architectures whose widths all keep about the same share, by MACs."""
        rows = [uniform(self.net, share) for share in SHARES]
        archs = self.net.space.architectures(rows)
        unique = np.unique(archs.ids, return_index=True)[1]
        return archs[unique[np.argsort(self.share(archs[unique]))]]


def opened(work: Path, seed: int) -> Bundled:
    """Make the bundled network elastic by the calibration samples of a seed, or open that."""
    supernet = hwsearch.load_supernet(SOURCE)
    largest = supernet.space.largest()
    spec = supernet.input_spec(largest[0])
    task = hwsearch.load_task("bundled", spec, SOURCE)
    model = work / "model.onnx"
    if not model.exists():
        builder = Builder(supernet, hwsearch.load_device("ort-cpu:threads=1"), task)
        (built,) = builder.build(list(largest))
        del built[0].metadata_props[:]  # a plain model, of which nothing is known
        onnx.save(built[0], model)
    name = spec.inputs[0].name
    assert task.calibration is not None
    pool, held = next(task.calibration.batches(DRAWN))[0][name], next(task.search.batches(2500))[0]
    pool, scored = np.concatenate([pool, held[name][:-SCORED]]), held[name][-SCORED:]
    report, labels = next(task.report.batches(2500))
    drawn = pool[np.random.default_rng(seed).choice(len(pool), DRAWN, replace=False)]
    data = work / f"seed{seed}.npz"
    if not data.exists():
        parts = {"calibration": drawn, "search": scored, "report": report[name]}
        np.savez(data, **{f"{split}.{name}": array for split, array in parts.items()})
    folder = work / f"seed{seed}.elastic"
    net = hwsearch.elastify(model, f"npz:{data}", out=folder, name="cifar")
    batches = [{name: drawn[start : start + 100]} for start in range(0, DRAWN, 100)]
    results = Results(work / f"seed{seed}.jsonl")
    given = log_softmax(outputs(onnx.load(model), name, scored))
    return Bundled(net, results, name, (report[name], labels), scored, given, batches)


def uniform(net: Supernet, share: float) -> dict[str, Any]:
    """Return choices whose widths are those nearest a share of the largest."""
    return {
        choice.name: nearest(choice.options, share)
        if not any(isinstance(option, bool) for option in choice.options)
        else True
        for choice in net.space.choices
    }


def nearest(options: Sequence[Any], share: float) -> Any:
    """Return the number among options that is nearest a share of the largest."""
    numbers = [option for option in options if not isinstance(option, str)]
    return min(numbers, key=lambda option: abs(option / max(numbers) - share))


def heads_and_ffn(net: Supernet, heads: int, ffn: float) -> dict[str, Any]:
    """Return the options of a transformer with so many heads and so much of the neurons."""
    found = dict(net.space.largest()[0].mapping)
    for choice in net.space.choices:
        if choice.name.endswith("heads"):
            found[choice.name] = heads
        elif choice.name.endswith(("ffn", "ffn.width")):
            found[choice.name] = nearest(choice.options, ffn)
    return found


def outputs(model: onnx.ModelProto, name: str, images: Array) -> Array:
    """Return the scores of classes: (n, classes)."""
    session = session_of(model)
    parts = [session.run(None, {name: images[k : k + 100]})[0] for k in range(0, len(images), 100)]
    return np.concatenate(parts)


def session_of(model: onnx.ModelProto) -> ort.InferenceSession:
    """Return a session of one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def log_softmax(scores: Array) -> Array:
    """Return log probabilities of scores: (n, classes)."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
