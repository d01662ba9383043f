"""A PyTorch module cut to a subnet: fewer channels, heads and branches under the same names."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import nn

from hwsearch.elastic.graph import Structure
from hwsearch.elastic.living import LIVING
from hwsearch.elastic.pytorch.copying import first_line, plain_copy
from hwsearch.elastic.pytorch.cut_module import cut_module
from hwsearch.elastic.pytorch.match import Matcher
from hwsearch.errors import InputError
from hwsearch.files import MAX_BYTES, parsed_json, read_bounded
from hwsearch.space import Architecture, SearchSpace

_SOME = 4  # weights that tell which elastic model a module belongs to


class ElasticModel(Protocol):
    """What a cut asks of `hwsearch.elastic.network.ElasticNetwork`."""

    space: SearchSpace
    structure: Structure
    digest: str

    def kept(self, arch: Architecture) -> tuple[dict[str, NDArray[np.bool_]], Iterable[str]]:
        """Return the kept units of groups that lose some, and what is left out."""
        ...

    def onnx_model(self, arch: Architecture) -> onnx.ModelProto:
        """Return the float32 model of a subnet."""
        ...


def cut(
    module: nn.Module,
    arch: Architecture | str | Path,
    net: Any = None,
    *,
    inputs: Any = None,
) -> nn.Module:
    """Cut a module to a subnet of the elastic model that was made of it.

    Args:
        module: The module, with the weights that the elastic model was made of; it stays as it is.
        arch: An architecture of the elastic model, or the folder of an exported subnet.
        net: The elastic model; by default the one in memory that has the architecture and the
            module's weights.
        inputs: Example inputs, as for `hwsearch.elastify`; by default random ones of the shapes
            of the model's inputs, in the order of forward's arguments.

    Returns:
        A copy of the module in eval mode, in float32 and on the CPU, without what the subnet does
        not have. Its parameters and buffers have the names that they had, and fewer rows and
        columns; weights are repaired. Its outputs are those of the subnet's ONNX model (1e-5 of
        the largest). Submodules on branches that are left out are replaced by ``Zero`` and
        ``Skip``.

    Raises:
        InputError: The module has other weights than the elastic model, or code in it depends on
            sizes that were removed; the text says which.
    """
    network = _network(net, arch, module)
    if isinstance(arch, str | Path):
        own, model = _exported(Path(arch), network)
    else:
        is_own = arch.space is network.space
        own = arch if is_own else Architecture(network.space, arch.mapping)
        model = network.onnx_model(own)
    structure = network.structure
    # A subnet for other image sizes has the same weights.
    del model.graph.input[:]
    model.graph.input.extend(structure.graph.proto.graph.input)
    kept, dropped = network.kept(own)
    return cut_module(module, structure, kept, set(dropped), model, inputs)


def _network(net: Any, arch: Architecture | str | Path, module: nn.Module) -> ElasticModel:
    """Return the given elastic model, or the only one in memory that fits."""
    network = getattr(net, "network", net)  # of a loaded supernet
    if all(hasattr(network, each) for each in ("structure", "kept", "onnx_model")):
        found: ElasticModel = network
        return found
    if net is not None:
        raise InputError(
            f"net is a {type(net).__name__}, no elastic model; give what hwsearch.elastify or "
            "hwsearch.load_supernet returned"
        )
    if isinstance(arch, str | Path):
        source = Path(str(_card(Path(arch)).get("supernet", {}).get("name", "")))
        if (source / "space.json").is_file():
            from hwsearch.elastic.elastify import open_elastic

            opened: ElasticModel = open_elastic(source)
            return opened
        raise InputError(
            f"subnet {str(arch)!r} is of the supernet {str(source)!r}, which is no folder of an "
            "elastic model here; give it: hwsearch.cut(module, folder, net)"
        )
    fitting: list[ElasticModel] = [each for each in LIVING if _has(each, arch)]
    if len(fitting) > 1:
        fitting = [each for each in fitting if _has_weights(each, module)]
    if len({each.digest for each in fitting}) != 1:
        raise InputError(
            f"{len(fitting) or 'no'} elastic models in memory have architecture {arch.key} and "
            "the module's weights; say which: hwsearch.cut(module, arch, net)"
        )
    return fitting[0]


def _has(network: ElasticModel, arch: Architecture) -> bool:
    if arch.space is network.space:
        return True
    try:
        Architecture(network.space, arch.mapping)
    except InputError:
        return False
    return True


def _has_weights(network: ElasticModel, module: nn.Module) -> bool:
    """Return whether the first weights of an elastic model are a module's."""
    matcher = Matcher(network.structure.graph, plain_copy(module))
    large = [n for n, array in matcher.graph.weights.items() if array.ndim > 1 and array.size > 16]
    return any(matcher.of(name) is not None for name in large[:_SOME])


def _exported(folder: Path, network: ElasticModel) -> tuple[Architecture, onnx.ModelProto]:
    """Return architecture and model of an exported subnet's folder."""
    card = _card(folder)
    if card.get("precision", "fp32") != "fp32":
        raise InputError(
            f"subnet {str(folder)!r} is {card['precision']}; give its architecture, whose float32 "
            "weights are known: hwsearch.cut(module, arch, net)"
        )
    try:
        arch = Architecture(network.space, card["architecture"])
    except (KeyError, TypeError, InputError) as error:
        raise InputError(
            f"subnet {str(folder)!r} is not of this elastic model: {first_line(error)}"
        ) from error
    return arch, onnx.load(folder / "model.onnx")


def _card(folder: Path) -> dict[str, Any]:
    path = folder / "card.json"
    try:
        content = parsed_json(read_bounded(path, MAX_BYTES))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{str(folder)!r} is no folder of an exported subnet: {path.name} cannot be read; "
            "give such as runs/NAME/subnets/KEY, or an architecture"
        ) from error
    return content if isinstance(content, dict) else {}
