"""Statistics of a trained model's activations: mean and covariance of what layers read."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import scipy.linalg.lapack
from numpy.typing import NDArray
from safetensors.numpy import save_file

from hwsearch.elastic.analysis.consumers import Linear, Readers, readers
from hwsearch.elastic.graph import Structure
from hwsearch.elastic.repair.accumulate import Accumulator
from hwsearch.elastic.repair.covariance import Covariance, Dense, Factored
from hwsearch.elastic.repair.sampling import Plan, Samples, plans
from hwsearch.errors import InputError
from hwsearch.files import staged_file

ROWS = 10_000
# Activations that are held at once. It is a constant, since what is drawn depends on the pieces.
PIECE_BYTES = 256 * 2**20
_FORMAT = "hwsearch elastic statistics 1"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class InputStatistics:
    """Mean and covariance of a layer's input, for each convolution group.

    Attributes:
        count: Rows that were seen.
        mean: (convolution groups, columns).
        packed: (convolution groups, columns * (columns + 1) / 2): the lower triangle of the
            covariance by columns; empty if ``rows`` are kept.
        rows: (convolution groups, count, columns): centred rows; empty if ``packed`` is kept.
    """

    count: int
    mean: NDArray[np.float32]
    packed: NDArray[np.float32]
    rows: NDArray[np.float32]

    def covariance(self, group: int, *, centred: bool) -> Covariance:
        """Return the covariance, or else the second moment, of a convolution group."""
        mean = self.mean[group].astype(np.float64)
        if self.rows.size:
            rows = self.rows[group].astype(np.float64)
            return Factored((rows if centred else rows + mean) / np.sqrt(self.count))
        lower = scipy.linalg.lapack.stpttr(len(mean), self.packed[group], uplo="L")[0]
        matrix = np.tril(lower).astype(np.float64)
        matrix += np.tril(matrix, -1).T
        return Dense(matrix if centred else matrix + np.outer(mean, mean))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Statistics:
    """Statistics of all layers of a structure that read units.

    Attributes:
        digest: Of the model that they are of.
        data: Digest of the samples and of how rows were drawn from them.
        samples: Number of samples.
        inputs: Key of a layer's input, see `Linear.key`, -> statistics.
    """

    digest: str
    data: str
    samples: int
    inputs: Mapping[str, InputStatistics] = field(repr=False)

    def covariances(self, layer: Linear) -> list[Covariance]:
        """Return the covariance of a layer's input, of each convolution group.

        It is the second moment if the layer has no constant that could take up the mean.
        """
        found = self.inputs[layer.key]
        centred = layer.bias is not None
        return [found.covariance(g, centred=centred) for g in range(len(found.mean))]

    def save(self, path: Path) -> None:
        """Write the statistics as safetensors, whole or not at all.

        Raises:
            InputError: The disk is full, or the file cannot be written.
        """
        arrays: dict[str, NDArray[Any]] = {}
        metadata = {
            "format": _FORMAT,
            "digest": self.digest,
            "data": self.data,
            "samples": str(self.samples),
        }
        for number, (key, found) in enumerate(self.inputs.items()):
            metadata[f"{number}.key"], metadata[f"{number}.count"] = key, str(found.count)
            arrays |= {f"{number}.mean": found.mean, f"{number}.packed": found.packed}
            arrays[f"{number}.rows"] = found.rows
        size = sum(array.nbytes for array in arrays.values())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with staged_file(path) as file:
                save_file(arrays, file.name, metadata)
        except (OSError, safetensors.SafetensorError) as error:
            raise InputError(
                f"the statistics ({size / 2**20:,.0f} MB) cannot be written to {str(path)!r}: "
                f"{error}. Nothing was left there; free some space, or give another folder"
            ) from error

    @classmethod
    def load(cls, path: Path, structure: Structure) -> "Statistics":
        """Read statistics of a structure; raise InputError if they are of another, or damaged."""
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if metadata.get("format") != _FORMAT:
                raise ValueError(f"it is not of the format {_FORMAT!r}")  # noqa: TRY301
            numbers = range(len(arrays) // 3)
            inputs = {
                metadata[f"{n}.key"]: InputStatistics(
                    count=int(metadata[f"{n}.count"]),
                    mean=arrays[f"{n}.mean"],
                    packed=arrays[f"{n}.packed"],
                    rows=arrays[f"{n}.rows"],
                )
                for n in numbers
            }
            found = cls(
                digest=metadata["digest"],
                data=metadata["data"],
                samples=int(metadata["samples"]),
                inputs=inputs,
            )
        except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
            raise InputError(
                f"the statistics {str(path)!r} cannot be read: {error}. Delete the file; they are "
                "gathered again."
            ) from error
        found.check(structure, str(path))
        return found

    def check(self, structure: Structure, name: str = "given") -> None:
        """Raise InputError if these are not statistics of the structure's layers."""
        if self.digest != structure.graph.digest:
            raise InputError(
                f"the statistics {name!r} are those of the model {self.digest[:16]}, not of "
                f"{structure.graph.digest[:16]}; gather them again"
            )
        found = readers(structure)
        for layer in found.layers.values():
            matrix = layer.matrix(structure.graph.weights[layer.weight])
            expected = (len(matrix), matrix.shape[2] * matrix.shape[3])
            given = self.inputs.get(layer.key)
            if given is None or given.mean.shape != expected:
                raise InputError(
                    f"the statistics {name!r} hold none of the input of {layer.node!r}; gather "
                    "them again"
                )


def gather(
    structure: Structure,
    batches: Iterable[Mapping[str, NDArray[Any]]],
    *,
    rows: int = ROWS,
    seed: int = 0,
    unfinished: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Statistics:
    """Run the model on samples, and accumulate statistics of the inputs of layers.

    Args:
        structure: The model and its groups.
        batches: Inputs by name; the first axis of each counts the samples.
        rows: About how many rows (positions of samples) are drawn for a layer. Padded tokens are
            left out where the model has an attention mask.
        seed: Of the positions that are drawn.
        unfinished: File that keeps what was accumulated if an error or interruption ends the
            work; the next call with equal arguments goes on from it, and removes it at the end.
        progress: Called with the samples done and the samples in all.

    Raises:
        InputError: There are too few samples, they do not fit the model or are all equal, or an
            activation is not finite or constant.
    """
    samples = Samples(structure.graph, batches)
    layers = _layers(readers(structure))
    planned = plans(structure.graph, layers, samples, rows)
    accumulator = Accumulator(
        structure,
        layers,
        planned,
        samples=samples.count,
        data=samples.digest(rows, seed),
        seed=seed,
    )
    start = accumulator.resume(unfinished) if unfinished is not None else 0
    done = 0
    try:
        for piece, inputs in enumerate(samples.pieces(structure.graph, layers, PIECE_BYTES)):
            if piece >= start:
                accumulator.add(piece, inputs)
            done += len(next(iter(inputs.values())))
            if progress is not None:
                progress(done, samples.count)
    except BaseException:
        if unfinished is not None:
            accumulator.keep(unfinished)
        raise
    found = Statistics(
        digest=structure.graph.digest,
        data=accumulator.data,
        samples=samples.count,
        inputs={
            key: InputStatistics(count=c, mean=mean, packed=packed, rows=kept)
            for key, (c, mean, packed, kept) in accumulator.finished().items()
        },
    )
    if unfinished is not None:
        unfinished.unlink(missing_ok=True)
    return found


def gathered_from(structure: Structure, batches: Iterable[Mapping[str, NDArray[Any]]]) -> str:
    """Return `Statistics.data` of what `gather` finds with the same samples."""
    return Samples(structure.graph, batches).digest(ROWS, 0)


def needed_bytes(structure: Structure, samples: int, rows: int = ROWS) -> int:
    """Return about the peak memory of `gather`, in bytes, beyond that of the samples.

    What follows, order and repair, takes less: the sums are gone by then.
    """
    layers = _layers(readers(structure))
    weights = sum(array.nbytes for array in structure.graph.weights.values())
    activations = max(PIECE_BYTES, Samples.bytes_each(structure.graph, layers))
    plans_ = Plan.all(structure.graph, layers, samples, rows).values()
    transient = max([plan.solving_bytes for plan in plans_], default=0)
    return 2 * weights + activations + transient + sum(plan.bytes for plan in plans_)


def _layers(found: Readers) -> dict[str, Linear]:
    """Return the first layer of each input, by its key."""
    layers: dict[str, Linear] = {}
    for layer in found.layers.values():
        layers.setdefault(layer.key, layer)
    return layers
