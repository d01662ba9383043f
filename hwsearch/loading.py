"""Supernets by name or folder, and trained models that become supernets by samples."""

import hashlib
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hwsearch.accuracy.input_batches import MOST_SAMPLES, InputBatches
from hwsearch.accuracy.sample_shapes import sample_shapes
from hwsearch.accuracy.sources import load_task
from hwsearch.accuracy.task import NO_DATA, SplitSamples
from hwsearch.accuracy.text import TOKENIZER
from hwsearch.elastic import elastify as elastic
from hwsearch.elastic.folder import cache_folder
from hwsearch.elastic.network import ElasticNetwork
from hwsearch.errors import InputError
from hwsearch.models.input_spec import input_spec_of
from hwsearch.supernets import zoo
from hwsearch.supernets.imported import imported_names
from hwsearch.supernets.interface import InputSpec
from hwsearch.supernets.model_names import is_elastic, is_trained_model, why_no_model
from hwsearch.supernets.supernet import Supernet
from hwsearch.trained_model import TrainedModel, is_module, takes_nothing, trained_model

if TYPE_CHECKING:
    import onnx
    from torch import nn

logger = logging.getLogger(__name__)
Progress = Callable[[str, int, int], None]  # what is done, and how many of how many
_BATCH: Final = 64
TOKENIZER_FILES: Final = (TOKENIZER, "tokenizer_config.json", "config.json")


def load_supernet(
    name: str,
    checkpoint: str | None = None,
    *,
    data: str | None = None,
    progress: Progress | None = None,
) -> Supernet:
    """Load a supernet.

    Args:
        name: A registered name (see ``hwsearch supernets``), the name of an imported checkpoint,
            ``module:function`` of a function that takes the checkpoint and returns the network,
            the folder of an elastic model, or a trained model as of `elastify`.
        checkpoint: A file, or ``"random:SEED"`` for seeded random weights; None means the
            shipped or the imported one.
        data: Samples by which a trained model becomes elastic; see `hwsearch.load_task`.
        progress: Told what is done to a trained model.

    Raises:
        InputError: The name is unknown, the checkpoint does not fit (the text says which family
            it looks like), a function's result breaks the contract of a supernet, or the trained
            model or the data cannot be used.
    """
    if is_elastic(name):
        if checkpoint is not None:
            raise InputError(
                f"{name!r} is an elastic model, which has its weights in it: it takes no "
                f"checkpoint ({checkpoint!r}); make it again from the model with other weights"
            )
        return Supernet(name, elastic.open_elastic(Path(name).expanduser()))
    if not (is_trained_model(name) or takes_nothing(name)):
        known = {*zoo.supernet_names(), *imported_names()}
        if name not in known and (why := why_no_model(name)):
            raise InputError(why)
        try:
            return zoo.load_supernet(name, checkpoint)
        except zoo.NoSupernetError as error:
            if not is_module(error.found):
                raise
    net = elastify(name, data or NO_DATA, checkpoint=checkpoint, progress=progress)
    return Supernet(name, net.network, checkpoint)


def elastify(
    source: "str | Path | onnx.ModelProto | nn.Module",
    data: str,
    *,
    inputs: Any = None,
    checkpoint: str | None = None,
    preprocess: str = "",
    shapes: Mapping[str, Sequence[int]] | None = None,
    name: str = "",
    licence: str = "unknown",
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Supernet:
    """Make a trained model a supernet, without training.

    What was made of the same model and samples before is opened instead.

    Args:
        source: An ONNX file or model; a PyTorch module, with ``inputs``; ``timm:NAME``,
            ``torchvision:NAME`` or ``hf:FOLDER``; or ``MODULE:FUNCTION`` of a function that
            returns a module and example inputs.
        data: Some hundred samples of the inputs; see `hwsearch.load_task`. They need no labels.
        inputs: Example inputs of a module: a tensor, a tuple of arguments or a dict of them.
        checkpoint: Weights of a module that is named: a file, or ``"random:SEED"``.
        preprocess: Of images, such as ``"-1..1"`` or ``"0..1,resize=256"``; by default what is
            found beside the model, else ImageNet's.
        shapes: Input -> shape of a sample, for axes that the model leaves open; by default those
            of the data.
        name: For users; by default that of the file or module.
        licence: Of the model.
        out: Folder to write, ``NAME.elastic``; by default one in the user's data.
        progress: Called with what is being done, and how many of how many.

    Raises:
        InputError: The model cannot be read or made elastic, or the data do not fit it.
    """
    if data in ("bundled", NO_DATA):
        named = repr(str(source)) if isinstance(source, str | Path) else "this"
        raise InputError(
            f"{named} is a trained model: it becomes elastic by some hundred samples of its "
            "inputs, without labels, and none ship with it; give data, such as "
            "imagefolder:FOLDER, npz:FILE or text:FILE"
        )
    model = trained_model(source, inputs, checkpoint)
    known = {input_: tuple(shape) for input_, shape in (shapes or {}).items()}
    open_ = {**sample_shapes(data, model.proto, model.folder), **model.shapes, **known}
    spec = input_spec_of(model.proto, open_, preprocess, model.folder)
    if model.preprocessing is not None and not preprocess:
        spec = replace(spec, preprocessing=model.preprocessing)
    if model.classes:
        spec = replace(spec, classes=model.classes)
    title = name or model.name
    samples = load_task(data, spec, title, labels="unneeded", folder=model.folder).calibration
    if samples is None:
        raise InputError(
            f"data {data!r} has no calibration samples, by which {title!r} becomes elastic; name "
            "arrays calibration.INPUT, or give arrays without splits"
        )
    folder = Path(out).expanduser() if out is not None else _cache(title, model, samples, spec)
    if out is None and folder.exists():
        network = elastic.open_elastic(folder)
    else:
        network = _made(model, samples, spec, title, licence, folder, progress)
    logger.info("elastic model %s in %s", title, folder)
    return Supernet(str(folder), network)


def _made(
    model: TrainedModel,
    samples: SplitSamples,
    spec: InputSpec,
    title: str,
    licence: str,
    folder: Path,
    progress: Progress | None,
) -> ElasticNetwork:
    network = elastic.elastify(
        model.given,
        InputBatches(samples, _BATCH, spec, MOST_SAMPLES),
        name=title,
        out=folder,
        spec=spec,
        licence=licence,
        origin=model.origin,
        progress=progress,
    )
    # Lines of text are read by the model's tokenizer, also where the model itself is gone.
    beside = model.folder
    if beside is not None and (beside / TOKENIZER).is_file():
        for file in filter(Path.is_file, (beside / name for name in TOKENIZER_FILES)):
            shutil.copyfile(file, folder / file.name)
    return network


def _cache(title: str, model: TrainedModel, samples: SplitSamples, spec: InputSpec) -> Path:
    """Return the folder of a model and its samples in the user's data."""
    parts = (model.digest, samples.digest, str(MOST_SAMPLES), repr(spec))
    return cache_folder(title, hashlib.sha256(" ".join(parts).encode()).hexdigest())
