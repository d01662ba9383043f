"""Elastic models: made from a trained model and samples of its inputs, kept, and opened again."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hwsearch.elastic.analysis.structure import analyse
from hwsearch.elastic.folder import (
    REPAIRED,
    STATISTICS,
    Contents,
    cache_folder,
    check_fit,
    check_place,
    read_card,
    read_folder,
    write_folder,
)
from hwsearch.elastic.graph import Graph, Structure
from hwsearch.elastic.input_sizes import image_sizes
from hwsearch.elastic.input_specs import spec_of_arrays
from hwsearch.elastic.network import ElasticNetwork
from hwsearch.elastic.proposal import SpaceSettings, propose
from hwsearch.elastic.reading import read_graph
from hwsearch.elastic.repair.order import unit_orders
from hwsearch.elastic.repair.repairs import Repair
from hwsearch.elastic.repair.statistics import (
    Statistics,
    gather,
    gathered_from,
    needed_bytes,
)
from hwsearch.elastic.sensitivity import losses_of
from hwsearch.elastic.summary import summary_of
from hwsearch.errors import InputError
from hwsearch.machine import available_memory_bytes
from hwsearch.models.execution import run
from hwsearch.supernets.interface import Card, InputSpec

Samples = Iterable[Mapping[str, NDArray[Any]]]
Progress = Callable[[str, int, int], None]

_FEW = 4  # samples that tell whether outputs are numbers


def elastify(
    source: Path | onnx.ModelProto | Graph,
    batches: Samples,
    *,
    name: str = "",
    out: Path | None = None,
    spec: InputSpec | None = None,
    licence: str = "unknown",
    origin: str = "",
    settings: SpaceSettings | None = None,
    progress: Progress | None = None,
) -> ElasticNetwork:
    """Make a trained model elastic: find its groups, order their units, prepare the repair.

    What was made from the same model and samples before is opened instead. Interrupted work goes
    on where it stopped when it is called again.

    Args:
        source: An ONNX file, a model or its graph.
        batches: Some hundred samples: inputs by name; the first axis counts the samples. They
            need no labels, and should not be those that subnets are scored on.
        name: For users; by default that of the file, or of the graph.
        out: Folder, ``NAME.elastic``; by default one in the user's data.
        spec: Inputs and outputs, with preprocessing and classes; by default what the graph and
            the samples tell. With the preprocessing of images their size becomes a choice.
        licence: Of the model.
        origin: Where a model in memory came from, for users.
        settings: Of the search space.
        progress: Called with what is being done, and how many of how many.

    Raises:
        InputError: The model cannot be read, nothing in it is elastic, the samples do not fit it,
            there is too little memory, or the folder cannot be written.
    """
    report = progress or _silent
    samples = [dict(batch) for batch in batches]
    report("read the model", 0, 1)
    first = samples[0] if samples else None
    graph = source if isinstance(source, Graph) else read_graph(source, samples=first)
    _check_batch(graph)
    name = name or (source.stem if isinstance(source, Path) else graph.proto.graph.name) or "model"
    data = _digest_of(samples)
    key = hashlib.sha256(f"{graph.digest} {data}".encode()).hexdigest()
    final = out or cache_folder(name, key)
    if not _is_of(final, graph, data):
        check_place(final)
        report("analyse the graph", 0, 1)
        structure = analyse(graph)
        propose(structure, settings)  # before the work: there may be nothing to choose
        _check_memory(structure, samples, report)
        _check_outputs(graph, samples)
        statistics = _statistics(structure, samples, final, report)
        orders = unit_orders(structure, statistics, partial(report, "order the units"))
        report("try other input sizes", 0, 1)
        # Only images can be made smaller: arrays have the size that they have.
        known = spec or spec_of_arrays(graph, samples)
        sizes = [] if known.preprocessing is None else image_sizes(structure, run)
        elastic = propose(structure, settings, sizes)
        losses = losses_of(
            structure,
            elastic,
            orders,
            Repair(structure, statistics, orders),
            samples,
            partial(report, "compute what units and branches are worth"),
        )
        report("write the folder", 0, 1)
        contents = Contents(
            name=name,
            graph=graph,
            orders=orders,
            losses=losses,
            space=elastic.to_dict(),
            spec=known,
            card=_card(name, source, licence, graph, origin),
            model_digest=graph.digest,
            data_digest=data,
            facts={"summary": summary_of(structure).to_dict(), "samples": statistics.samples},
        )
        write_folder(final, contents, statistics.save)
        _gathered(final).unlink(missing_ok=True)
    return open_elastic(final, settings=settings, spec=spec)


def open_elastic(
    folder: Path,
    *,
    settings: SpaceSettings | None = None,
    spec: InputSpec | None = None,
) -> ElasticNetwork:
    """Open an elastic model's folder.

    Args:
        folder: ``NAME.elastic``.
        settings: Of another search space than the one in the folder.
        spec: Inputs and outputs, if they are described otherwise than in the folder.

    Raises:
        InputError: It is no elastic model, damaged, or of another version of hwsearch.
    """
    contents = read_folder(folder)
    structure = analyse(contents.graph)
    elastic = check_fit(structure, contents)
    if settings is not None:
        known = replace(settings, step=settings.step or elastic.step)
        elastic = propose(structure, known, elastic.sizes)

    def repair() -> Repair:
        statistics = Statistics.load(folder / STATISTICS, structure)
        return Repair(structure, statistics, contents.orders, folder / REPAIRED)

    return ElasticNetwork(
        structure,
        elastic,
        contents.orders,
        spec or contents.spec,
        contents.card,
        repair=repair,
        losses=contents.losses,
        statistics_digest=contents.data_digest,
        folder=folder,
    )


def _statistics(
    structure: Structure, samples: list[dict[str, NDArray[Any]]], final: Path, report: Progress
) -> Statistics:
    """Gather statistics, or go on where an interruption stopped it.

    They are kept beside the folder until that is written, for interruptions of what follows.
    """
    gathered = _gathered(final)
    with suppress(InputError):
        kept = Statistics.load(gathered, structure)
        if kept.data == gathered_from(structure, samples):
            return kept
    unfinished = final.with_name(f".{final.name}.unfinished")
    found = gather(
        structure, samples, unfinished=unfinished, progress=partial(report, "gather statistics")
    )
    found.save(gathered)
    return found


def _gathered(final: Path) -> Path:
    return final.with_name(f".{final.name}.gathered")


def _check_batch(graph: Graph) -> None:
    """Refuse inputs that are not fed a sample each: subnets are scored in batches."""
    for value in graph.proto.graph.input:
        dims = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if not dims or not isinstance(dims[0], str):
            raise InputError(
                f"input {value.name!r} of shape {tuple(dims)} has no axis for the samples, which "
                "are fed in batches; make it a constant of the model, or give it a first axis "
                "for them"
            )


def _check_memory(
    structure: Structure, samples: list[dict[str, NDArray[Any]]], report: Progress
) -> None:
    """Say how much memory is needed; raise InputError if there is less."""
    count = sum(len(next(iter(batch.values()))) for batch in samples)
    needed, available = needed_bytes(structure, count), available_memory_bytes()
    report(f"gather statistics in up to {needed / 2**30:.1f} GB of memory", 0, 1)
    if needed > available:
        raise InputError(
            f"statistics of this model need {needed / 2**30:.1f} GB of memory, and "
            f"{available / 2**30:.1f} GB are available; give fewer samples, or close programs"
        )


def _check_outputs(graph: Graph, samples: list[dict[str, NDArray[Any]]]) -> None:
    """Refuse a model whose outputs are not finite, of its first samples: nothing compares."""
    few = {name: array[:_FEW] for name, array in samples[0].items()} if samples else {}
    if not few:
        return  # it is refused as too few samples
    for name, array in run(graph.proto, few, weights=graph.weights).items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise InputError(
                f"output {name!r} of the model is NaN or infinite for the first calibration "
                "samples; look at the samples, their preprocessing (--preprocess) and the model"
            )


def _is_of(folder: Path, graph: Graph, data: str) -> bool:
    """Return whether a folder holds the elastic model of this graph and data.

    Raises:
        InputError: It holds another one.
    """
    if not folder.exists():
        return False
    try:
        card = read_card(folder)
    except InputError:
        return False  # it is made again, or refused as no elastic model
    if (card.get("model"), card.get("data")) == (graph.digest, data):
        return True
    what = "other samples" if card.get("model") == graph.digest else "another model"
    raise InputError(
        f"{str(folder)!r} is an elastic model of {what} (SHA-256 {str(card.get('model'))[:16]}, "
        f"this one is {graph.digest[:16]}); give another folder, or remove that one"
    )


def _digest_of(samples: list[dict[str, NDArray[Any]]]) -> str:
    found = hashlib.sha256()
    for batch in samples:
        for name, array in sorted(batch.items()):
            found.update(f"{name} {array.dtype.str} {array.shape}".encode())
            found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _card(
    name: str,
    source: Path | onnx.ModelProto | Graph,
    licence: str,
    graph: Graph,
    origin: str,
) -> Card:
    where = f"file {source}" if isinstance(source, Path) else origin or "a model in memory"
    return Card(
        name=name,
        description="A trained model made elastic: its subnets follow from it without training.",
        licence=licence,
        source=f"{where}, SHA-256 {graph.digest}",
        facts={"family": name, "elastic": True, "notes": list(graph.notes)},
    )


def _silent(step: str, done: int, total: int) -> None:
    """Show no progress."""
