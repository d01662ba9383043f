"""How much of many published architectures is elastic, and whether subnets of them are exact.

    python tools/check_coverage.py [GLOB ...] [--exporter torchscript|dynamo] [--cut] [--rows FILE]

Each model is built with random weights (torchvision, timm), exported, read and analysed. Every
exact group is halved: the sliced model must give the outputs of the whole one with zeros in the
weights that read removed units. ``--cut`` does the same to the PyTorch module. Rows are appended
to a file of JSON lines; without models the table of that file is printed. Models of packages that
are not installed are left out.
"""

import argparse
import gc
import importlib.util
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hwsearch.elastic import build
from hwsearch.elastic.analysis.structure import analyse
from hwsearch.elastic.graph import Group, Structure
from hwsearch.elastic.pytorch.cut_module import cut_module
from hwsearch.elastic.pytorch.module import export_module
from hwsearch.elastic.pytorch.sources import load_module
from hwsearch.elastic.pytorch.tracing import Exporter
from hwsearch.elastic.reading import read_graph
from hwsearch.elastic.summary import summary_of
from hwsearch.errors import HwsearchError
from hwsearch.models.agreement import disagreement
from hwsearch.models.execution import run

TOLERANCE = 1e-5
# Model -> share of its MACs that exact groups must reach.
MODELS = {
    "torchvision:resnet50": 1.0,
    "torchvision:resnet18": 1.0,
    "torchvision:resnext50_32x4d": 1.0,
    "torchvision:regnet_y_400mf": 1.0,
    "torchvision:fcn_resnet50": 1.0,
    "torchvision:vgg11_bn": 1.0,
    "torchvision:mobilenet_v2": 1.0,
    "torchvision:mobilenet_v3_large": 1.0,
    "torchvision:mnasnet1_0": 1.0,
    "torchvision:efficientnet_b0": 1.0,
    "torchvision:lraspp_mobilenet_v3_large": 1.0,
    "torchvision:densenet121": 1.0,
    "torchvision:googlenet": 1.0,
    "torchvision:inception_v3": 1.0,
    "torchvision:squeezenet1_1": 1.0,
    "torchvision:shufflenet_v2_x1_0": 1.0,
    "torchvision:convnext_tiny": 0.93,
    "torchvision:swin_t": 0.92,
    "torchvision:vit_b_16": 0.83,
    "torchvision:maxvit_t": 0.78,
    "timm:deit_tiny_patch16_224": 0.83,
    "timm:ghostnet_100": 1.0,
    "timm:res2net50_26w_4s": 1.0,
    "timm:hrnet_w18_small": 1.0,
    "timm:cspresnet50": 1.0,
    "timm:repvgg_a0": 1.0,
    "timm:mobileone_s0": 1.0,
    "timm:fastvit_t8": 1.0,
    "timm:efficientvit_b0": 0.91,
    "timm:mobilevit_xxs": 0.8,
    "timm:edgenext_xx_small": 0.78,
    "timm:convnextv2_atto": 0.0,
    "timm:poolformer_s12": 0.87,
    "timm:mixer_s32_224": 0.9,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What was found of one model and exporter.

    Attributes:
        error: Why there is nothing else, or empty.
        gmacs: For one sample, in billions.
        groups: Exact groups, and others.
        kinds: Kind of exact groups -> share of the MACs.
        elastic: Share of the MACs that exact groups take part in.
        branches: Branches, and the share of the MACs in them.
        difference: Largest relative difference of outputs, sliced against zeroed.
        left: Share of the MACs that was left with every exact group halved.
        seconds: Exporting, reading, analysing.
        cut: What came of cutting the module: "ok", why not, or empty.
        rest: What was left alone, most MACs first.
    """

    model: str
    exporter: str
    error: str = ""
    gmacs: float = 0.0
    groups: tuple[int, int] = (0, 0)
    kinds: Mapping[str, float] | None = None
    elastic: float = 0.0
    branches: tuple[int, float] = (0, 0.0)
    difference: float = float("nan")
    left: float = float("nan")
    seconds: tuple[float, ...] = ()
    cut: str = ""
    rest: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Return whether the model reaches its share, and its subnets are exact."""
        exact = self.difference <= TOLERANCE or not self.groups[0]
        return not self.error and exact and self.elastic >= MODELS.get(self.model, 0.0) - 5e-3


def available() -> list[str]:
    """Return the models whose package is installed."""
    return [name for name in MODELS if importlib.util.find_spec(name.partition(":")[0])]


def built(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Return a model with seeded weights that are nowhere constant, and an example input."""
    source = load_module(name, "random:0")
    module = source.module.eval()
    generator = torch.Generator().manual_seed(1)
    for each in module.modules():
        if getattr(each, "running_var", None) is not None:
            each.running_mean.normal_(0, 0.1, generator=generator)  # type: ignore[operator]
            each.running_var.uniform_(0.8, 1.25, generator=generator)  # type: ignore[operator]
    with torch.no_grad():
        for parameter in module.parameters():
            # Norms, biases and layer scales start constant: equal ones would hide wrong slices.
            if parameter.numel() > 1 and parameter.min() == parameter.max():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.mul_(1 + 0.1 * noise).add_(0.01 * noise)
    return module, source.inputs


def check(name: str, exporter: Exporter, *, cut: bool = False) -> Row:
    """Analyse one model, and compare a subnet of it with the whole one."""
    module, example = built(name)
    begin = time.perf_counter()
    try:
        exported = export_module(module, example, exporter)
        read = time.perf_counter()
        graph = read_graph(exported.model, exported.shapes)
        analysed = time.perf_counter()
        structure = analyse(graph)
    except HwsearchError as error:
        return Row(model=name, exporter=exporter, error=str(error))
    end = time.perf_counter()
    found = summary_of(structure)
    kept = halved(structure)
    sliced = build.sliced(structure, kept)
    inputs = {n: t.numpy() for n, t in exported.call.examples(2).items()}
    return Row(
        model=name,
        exporter=exporter,
        gmacs=found.macs / 1e9,
        groups=(sum(share.count for share in found.kinds.values()), found.inexact.count),
        kinds={kind: share.macs for kind, share in found.kinds.items()},
        elastic=found.elastic,
        branches=(found.branches.count, found.branches.macs),
        difference=difference(sliced, build.zeroed(structure, kept), inputs),
        left=macs_left(structure, kept),
        seconds=(read - begin, analysed - read, end - analysed),
        cut=_cut(module, structure, kept, sliced) if cut else "",
        rest=tuple(f"{each.what}: {each.reason}" for each in found.rest[:4]),
    )


def halved(structure: Structure) -> dict[str, NDArray[np.bool_]]:
    """Return half of the units of every exact group that has more than one; every part keeps half.

    Which ones is random, but seeded: the first half would hide wrong indices.
    """
    rng = np.random.default_rng(0)
    kept = {}
    for group in structure.groups:
        if group.exact and group.size > 1:
            kept[group.name] = _half(group, rng)
    return {name: mask for name, mask in kept.items() if not mask.all()}


def _half(group: Group, rng: np.random.Generator) -> NDArray[np.bool_]:
    parts = group.parts if len(group.parts) else np.zeros(group.size, np.int64)
    sizes = np.bincount(parts)
    unit = np.gcd.reduce(sizes[sizes > 0])  # shares of parts are multiples of one in so many
    share = (unit + 1) // 2 if unit > 1 else unit
    mask = np.zeros(group.size, np.bool_)
    for part in np.unique(parts):
        own = np.flatnonzero(parts == part)
        mask[rng.permutation(own)[: len(own) * share // unit]] = True
    return mask


def macs_left(structure: Structure, kept: Mapping[str, NDArray[np.bool_]]) -> float:
    """Return the share of the MACs that a subnet has."""
    removed = {name: int((~mask).sum()) for name, mask in kept.items()}
    left = 0.0
    for work in structure.work:
        share = 1.0
        for size, widths in work.factors:
            gone = sum(width * removed.get(name, 0) for name, width in widths.items())
            share *= (size - gone) / size
        left += work.macs * share
    return left / max(1, sum(work.macs for work in structure.work))


def difference(ours: Any, reference: Any, inputs: Mapping[str, NDArray[Any]]) -> float:
    """Return the largest relative difference of the outputs of two models."""
    names = {each.name for each in ours.graph.input}
    given = {name: array for name, array in inputs.items() if name in names}
    found = [list(run(model, given).values()) for model in (ours, reference)]
    return disagreement(*found)


def _cut(
    module: nn.Module, structure: Structure, kept: Mapping[str, NDArray[np.bool_]], sliced: Any
) -> str:
    try:
        cut_module(module, structure, kept, (), sliced)
    except HwsearchError as error:
        return str(error)
    return "ok"


def table(rows: Iterable[Row]) -> Iterator[str]:
    """Yield the lines of a table of rows."""
    yield (
        "| model | exporter | GMACs | groups | of the MACs elastic | in branches and layers "
        "| sliced against zeroed | MACs of halves | module cut |"
    )
    yield "|" + " --- |" * 9
    for row in rows:
        if row.error:
            yield f"| {row.model} | {row.exporter} | {row.error} |" + " |" * 6
            continue
        cells = (
            row.model, row.exporter, f"{row.gmacs:.3f}", f"{row.groups[0]}",
            f"{row.elastic:.3f}{'' if row.passed else ' **!**'}", f"{row.branches[1]:.3f}",
            f"{row.difference:.1e}" if row.groups[0] else "no group", f"{row.left:.3f}",
            "refused" if row.cut not in ("", "ok") else row.cut,
        )  # fmt: skip
        yield "| " + " | ".join(cells) + " |"


def main() -> None:
    """Check models, or print the table of those that were checked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", metavar="GLOB")
    parser.add_argument("--exporter", choices=("torchscript", "dynamo"), action="append")
    parser.add_argument("--cut", action="store_true", help="cut the PyTorch modules too")
    parser.add_argument("--rows", type=Path, default=Path("coverage.jsonl"))
    given = parser.parse_args()
    for name in available():
        if not any(fnmatch(name, glob) for glob in given.models):
            continue
        for exporter in given.exporter or ("torchscript",):
            row = check(name, exporter, cut=given.cut)
            with given.rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row)) + "\n")
            print("\n".join(table([row])).splitlines()[-1], flush=True)
            for line in (*row.rest, *([row.cut] if row.cut not in ("", "ok") else [])):
                print(f"    {line}", flush=True)
            gc.collect()
    if not given.models:
        lines = given.rows.read_text(encoding="utf-8").splitlines() if given.rows.exists() else []
        kept = {each.name for each in fields(Row)}
        found = [Row(**{k: v for k, v in r.items() if k in kept}) for r in map(json.loads, lines)]
        rows = {(row.model, row.exporter): row for row in found}
        print("\n".join(table(rows.values())))
        sys.exit(0 if all(row.passed for row in rows.values()) else 1)


if __name__ == "__main__":
    main()
