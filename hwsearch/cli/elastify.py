"""Command that makes a trained model elastic: elastify."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import hwsearch
from hwsearch.cli.app import answer, command, showing
from hwsearch.errors import InputError
from hwsearch.run.disk_usage import size_of
from hwsearch.run.progress import steps_of
from hwsearch.terminal import size_text

if TYPE_CHECKING:
    from hwsearch.supernets.supernet import Supernet


@command(
    "hwsearch elastify model.onnx --data imagefolder:photos --out mine.elastic",
    "hwsearch elastify my_module:load --data npz:samples.npz",
)
def elastify(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="An ONNX file, timm:NAME, torchvision:NAME, hf:FOLDER, or MODULE:FUNCTION of a "
            "function that returns a PyTorch module and example inputs.",
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            help="Some hundred samples, without labels: imagefolder:FOLDER, npz:FILE, text:FILE, "
            "cifar10:FOLDER or MODULE:FUNCTION."
        ),
    ],
    out_folder: Annotated[
        Path | None,
        typer.Option("--out", help="Folder to write, NAME.elastic; default: in the user's data."),
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Weights of a module: a file, or random:SEED.")
    ] = None,
    preprocess: Annotated[
        str,
        typer.Option(
            help="Of images: imagenet, 0..1, -1..1 or 0..255, and resize=, layout=, colour=; "
            "default: what is found beside the model, else imagenet."
        ),
    ] = "",
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT=N,N,...",
            help="Repeat it. Shape of a sample of an input that the model leaves open.",
        ),
    ] = None,
) -> None:
    """Make a trained model a supernet, without training: its widths, heads and branches.

    It is a folder that 'hwsearch search --supernet' takes, for any number of devices; 'hwsearch
    search --supernet MODEL' makes one by itself.
    """
    began = time.monotonic()
    with showing() as progress:
        net = hwsearch.elastify(
            model,
            data,
            out=out_folder,
            checkpoint=checkpoint,
            preprocess=preprocess,
            shapes=_shapes(shape or ()),
            progress=steps_of(progress),
        )
    _print(net, time.monotonic() - began, data)


def _shapes(given: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return input -> shape of options ``INPUT=N,N,...``."""
    shapes = {}
    for text in given:
        name, equals, sizes = text.rpartition("=")
        numbers = [size.strip() for size in sizes.split(",")]
        if not (name and equals and all(each.isdecimal() for each in numbers)):
            raise InputError(
                f"shape {text!r} is not of the form INPUT=N,N,... such as image=3,224,224: the "
                "sizes of one sample, without the batch"
            )
        shapes[name] = tuple(map(int, numbers))
    return shapes


def _print(net: "Supernet", seconds: float, data: str) -> None:
    """Print what is elastic in a model, what was left out and why, and how to go on."""
    from hwsearch.elastic.network import ElasticNetwork

    assert isinstance(net.network, ElasticNetwork)
    folder, summary = Path(net.name), net.network.summary
    searched = [choice for choice in net.space.choices if len(choice.options) > 1]
    size, step = size_of(folder), net.network.elastic.step
    answer(
        {
            "folder": str(folder),
            "bytes": size,
            "seconds": round(seconds, 1),
            "choices": len(net.full_space.choices),
            "searched": len(searched),
            "architectures": net.space.size,
            "step": step,
            **summary.to_dict(),
        },
        *(f"{'model' if at == 0 else '':8} {line}" for at, line in enumerate(summary.lines())),
        f"space    {len(searched)} choices are searched by default, of "
        f"{len(net.full_space.choices)}: {net.space.size:.3g} architectures, of widths in steps "
        f"of {step} channels",
        f"made     in {seconds:.0f} s; {size_text(size)} in {folder}",
        f"next     hwsearch search --supernet {folder} --data {data} --out runs/{folder.stem}",
    )
