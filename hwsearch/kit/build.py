"""Kits: Python archives of models and of hwsearch's measuring code."""

import hashlib
import platform
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import onnx

import hwsearch
from hwsearch.blocks import BlockSpec
from hwsearch.chains import ChainIndex
from hwsearch.devices import MeasureSettings
from hwsearch.devices.anchor import anchors_digest
from hwsearch.errors import InputError, unknown
from hwsearch.files import staged_file
from hwsearch.kit.manifest import CONFIRM, EXAMPLES, NAME, TABLE, KitModel, Manifest
from hwsearch.kit.measuring_code import code_files, device_entries, store_member
from hwsearch.kit.table_latency import FEWEST
from hwsearch.loading import load_supernet
from hwsearch.models.quantize import check_converter
from hwsearch.models.repeated_weights import timing_model, with_repeated_weights
from hwsearch.precision import PrecisionSetting, options_of
from hwsearch.prediction.subnet_design import choose_subnets, covering_subnets
from hwsearch.quantization import FP32, INT8, MIXED, PROCESSORS, Quantization, quantization_for
from hwsearch.space import Architecture, Architectures
from hwsearch.supernets.supernet import Supernet
from hwsearch.supernets.weight_sources import RANDOM
from hwsearch.supernets.zoo import supernet_names


def make_kit(
    net: Supernet | str,
    out: str | Path = "kit.pyz",
    *,
    subnets: int = 40,
    freeze: Sequence[str] = (),
    only: Sequence[str] = (),
    precision: str = FP32,
    processor: str | None = None,
    settings: MeasureSettings | None = None,
    built: Callable[[int], None] | None = None,
) -> Manifest:
    """Make one file that measures subnets where there is Python, numpy and a runtime.

    Args:
        net: A supernet, or the name of one; its weights do not get into the kit.
        out: The file; it is replaced.
        subnets: Number of subnets to measure, at least 8.
        freeze: Choices restricted to one option; see `Supernet.restrict`.
        only: Choices restricted to some options.
        precision: Precision of the models: that of the device, or a choice such as
            ``"fp32,int8:per-block"``.
        processor: That of the device, ``"x86_64"`` or ``"aarch64"``, on which int8 models depend;
            by default this machine's.
        settings: Precision of the measurement; by default ±1.5%.
        built: Called with the number of every written model, from 1.

    Raises:
        InputError: An argument cannot be used; nothing has been written.
    """
    chosen = PrecisionSetting.parse(precision) if "," in precision else None
    single = [name for name in EXAMPLES if name != MIXED]
    if chosen is None and precision not in single:
        raise unknown("precision", precision, single)
    if processor not in (None, *PROCESSORS.values()):
        raise unknown("processor", processor, PROCESSORS.values())
    for each in (precision,) if chosen is None else chosen.options:
        check_converter(EXAMPLES.get(each, EXAMPLES[MIXED]), each)
    quantization = quantization_for({"architecture": processor or platform.machine()})
    net = load_for_latency(net) if isinstance(net, str) else net
    if chosen is not None:
        net, precision = net.with_precision(*chosen.options, per=chosen.per), MIXED
    part = net.restrict(freeze, only)
    archs = choose(part, subnets)

    def models() -> Iterator[tuple[Architecture, onnx.ModelProto]]:
        for number, arch in enumerate(archs, start=1):
            yield arch, timing_model(part, arch, precision, quantization)
            if built is not None:
                built(number)

    return write_kit(
        part,
        models(),
        Path(out),
        TABLE,
        settings or MeasureSettings(),
        precision=precision,
        quantization=quantization,
    )


def load_for_latency(name: str, checkpoint: str | None = None) -> Supernet:
    """Return a supernet to be timed, with random weights if none ship with it."""
    try:
        return load_supernet(name, checkpoint)
    except InputError:
        if checkpoint is not None or name not in supernet_names():
            raise
        return load_supernet(name, f"{RANDOM}0")


def choose(net: Supernet, n: int) -> Architectures:
    """Return n subnets from which the latency of all others is predicted.

    Some hold every block spec, twice if n allows; the others are spread evenly over the size.
    """
    space = net.space
    if not FEWEST <= n <= space.size:
        raise InputError(
            f"subnets {n} is not from {FEWEST}, the fewest to predict from, to the "
            f"{space.size:.3g} architectures of {net.name}"
        )
    if net.timed_blocks(space.smallest()[0]) is None:
        return choose_subnets(space, n, partial(net.exact, "bytes"), seed=0)
    index = ChainIndex(space, net.timed_blocks)
    covering = covering_subnets(index, index.specs, repeats=2, seed=0)
    if len(covering) > n // 2:
        covering = covering_subnets(index, index.specs, repeats=1, seed=0)[:n]
    left = n - len(covering)
    if not left:
        return covering
    spread = choose_subnets(space, left, partial(net.exact, "macs"), seed=0, exclude=covering)
    return Architectures.concatenate([covering, spread])


def write_kit(
    net: Supernet,
    models: Iterable[tuple[Architecture, onnx.ModelProto]],
    out: Path,
    purpose: str,
    settings: MeasureSettings,
    *,
    precision: str = FP32,
    quantization: Quantization | None = None,
    run: str = "",
    device: str = "",
    fingerprint: str = "",
) -> Manifest:
    """Write a kit atomically, consuming one model at a time; return its `Manifest`.

    ``precision`` is that of the models, ``quantization`` how those of int8 were made. Weights of
    the models do not get into the kit. Equal models and code give the same bytes. Raise
    InputError where there is no model, or the file cannot be written.
    """
    converted = options_of(net.precision, precision)
    specs: dict[BlockSpec, int] = {}
    packed: list[KitModel] = []
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with staged_file(out) as file, zipfile.ZipFile(file, "w") as archive:
            for name, code in code_files():
                store_member(archive, name, code)
            for arch, model in models:
                content = _serialized(with_repeated_weights(model))
                original = _serialized(model) if purpose == CONFIRM else None
                chain = net.timed_blocks(arch) or ()
                found = KitModel(
                    key=arch.key,
                    architecture=arch.mapping,
                    sha256=hashlib.sha256(content).hexdigest(),
                    n_bytes=len(content),
                    blocks={b.name: specs.setdefault(b.spec, len(specs)) for b in chain},
                    shipped=hashlib.sha256(original).hexdigest() if original else "",
                )
                packed.append(found)
                store_member(archive, found.member, content)
            if not packed:
                raise InputError("a kit without subnets measures nothing; give at least 1")
            manifest = Manifest(
                purpose=purpose,
                supernet=net.family,
                space=net.structures_digest,
                anchor=anchors_digest(),
                devices=device_entries(),
                specs=tuple(specs),
                models=tuple(packed),
                settings=asdict(settings),
                precision=precision,
                activations=quantization.activations if quantization and INT8 in converted else "",
                run=run,
                device=device,
                fingerprint=fingerprint,
                version=hwsearch.__version__,
            )
            store_member(archive, NAME, manifest.to_json().encode())
    except OSError as error:
        raise InputError(f"cannot write {str(out)!r}: {error}; give another --out") from error
    return manifest


def _serialized(model: onnx.ModelProto) -> bytes:
    return bytes(model.SerializeToString(deterministic=True))
