"""Export of a module to ONNX by the two exporters of PyTorch."""

import copy
import importlib.util
import io
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, Literal

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwsearch.elastic.pytorch.attention import CutMultiheadAttention
from hwsearch.elastic.pytorch.axes import Axis
from hwsearch.elastic.pytorch.call import ModuleCall
from hwsearch.elastic.pytorch.copying import first_line
from hwsearch.elastic.pytorch.names import name_initialisers, name_values
from hwsearch.errors import InputError
from hwsearch.models.trace import TRACED

OPSET = 20  # the first one in which Gelu is one operator; LayerNormalization is one from 17 on
Exporter = Literal["torchscript", "dynamo"]


def has_dynamo() -> bool:
    """Return whether the exporter on `torch.export` can be used: it needs ``onnxscript``."""
    return importlib.util.find_spec("onnxscript") is not None


def exported(
    module: nn.Module, call: ModuleCall, exporter: Exporter, dynamic: tuple[Axis, ...] = ()
) -> onnx.ModelProto:
    """Export a module; the names of weights, inputs and outputs are final.

    Args:
        module: In eval mode.
        call: Its inputs and outputs.
        exporter: ``torchscript`` traces the module, ``dynamo`` captures it by `torch.export`.
        dynamic: Axes that the trace follows, besides the batch.

    Raises:
        InputError: The exporter fails; the text has the first line of its message.
    """
    shared: nn.Module = module
    if not isinstance(module, torch.jit.ScriptModule):  # its forward cannot be replaced
        shared = copy.copy(module)
        shared.forward = call.flat(module.forward)
    examples = tuple(call.examples(TRACED).values())
    # Names of their own, since some exporters name inner values like inputs and outputs.
    names = {f"hwsearch.input.{i}": name for i, name in enumerate(call.inputs)}
    results = {f"hwsearch.output.{i}": name for i, name in enumerate(call.outputs)}
    sizes: list[dict[int, str]] = [{0: "batch"} for _ in names]
    for axis in dynamic:
        for input_, position in axis.places:
            sizes[list(call.inputs).index(input_)][position] = axis.name
    trace = _traced if exporter == "torchscript" else _captured
    try:
        with redirect_stdout(io.StringIO()), _explicit_attention(module):  # exporters print
            model = trace(shared, examples, list(names), list(results), sizes)
    except Exception as error:
        # Exporters raise any class of exception.
        raise InputError(_reason(module, error)) from error
    name_values(model, names | results)
    name_initialisers(model, module)
    return model


@contextmanager
def plain_forward() -> Iterator[None]:
    """Keep modules from paths of forward that have no counterpart in ONNX, and from autocast."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _explicit_attention(module: nn.Module) -> Iterator[None]:
    """Trace fused attention as its two products and a softmax, without guards against NaN.

    `torch.nn.MultiheadAttention` is traced as its cut form, which has the same outputs, and no
    sizes of its input in its graph.
    """
    fused = functional.scaled_dot_product_attention
    layers = [each for each in module.modules() if type(each) is nn.MultiheadAttention]
    layers = [each for each in layers if CutMultiheadAttention.takes(each)]
    packed = [each._qkv_same_embed_dim for each in layers]
    functional.scaled_dot_product_attention = _attention
    for each in layers:
        CutMultiheadAttention.convert(each, each.num_heads)
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = fused
        for each, was_packed in zip(layers, packed, strict=True):
            each.__class__ = nn.MultiheadAttention
            each._qkv_same_embed_dim = was_packed


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,  # noqa: ARG001 - of training
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return what `torch.nn.functional.scaled_dot_product_attention` defines, written out."""
    if enable_gqa and key.shape[-3] != query.shape[-3]:
        repeats = int(query.shape[-3]) // int(key.shape[-3])
        key, value = (each.repeat_interleave(repeats, -3) for each in (key, value))
    scale = 1 / math.sqrt(int(query.shape[-1])) if scale is None else scale
    scores = query * scale @ key.transpose(-2, -1)
    lowest = torch.finfo(scores.dtype).min
    if is_causal:
        seen = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
        scores = scores.masked_fill(~seen, lowest)
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, lowest)
        else:
            scores = scores + attn_mask
    return scores.softmax(-1) @ value


def _traced(
    module: nn.Module,
    examples: tuple[Tensor, ...],
    names: list[str],
    results: list[str],
    sizes: list[dict[int, str]],
) -> onnx.ModelProto:
    buffer = io.BytesIO()
    axes: dict[str, Any] = {**dict(zip(names, sizes, strict=True)), **{n: [0] for n in results}}
    torch.onnx.export(
        module,
        examples,
        buffer,  # type: ignore[arg-type]  # takes files too
        dynamo=False,
        opset_version=OPSET,
        input_names=names,
        output_names=results,
        dynamic_axes=axes,
        # Neither folds nor renames: parameters keep their names.
        do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE,
    )
    return onnx.load_from_string(buffer.getvalue())


def _captured(
    module: nn.Module,
    examples: tuple[Tensor, ...],
    names: list[str],
    results: list[str],
    sizes: list[dict[int, str]],
) -> onnx.ModelProto:
    program = torch.onnx.export(
        module,
        examples,
        dynamo=True,
        opset_version=OPSET,
        input_names=names,
        output_names=results,
        dynamic_shapes=tuple(dict.fromkeys(axes, torch.export.Dim.AUTO) for axes in sizes),
        optimize=False,  # it folds batch norms
        verbose=False,
    )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return model


def _reason(module: nn.Module, error: Exception) -> str:
    """Say why a module cannot be exported, and what to try."""
    operator = re.search(r"operator '([^']+)'", str(error))
    if operator:
        step = f"replace {operator[1]} by other operators in forward"
    else:
        step = "call torch.onnx.export on it to see all of the exporter's message"
    if not has_dynamo():
        step += ", or pip install onnxscript, with which PyTorch's other exporter is tried too"
    return (
        f"module {type(module).__name__} cannot be exported to ONNX: {first_line(error)}. To go "
        f"on, {step}, or give an ONNX model of it instead"
    )
