"""hwsearch: hardware-aware subnet search.

From a pretrained supernet, or any trained model, and a device to the Pareto-optimal subnets on
that device, as verified ONNX files. Names are imported at first use, so that ``import hwsearch``
is fast.
"""

import logging
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwsearch.accuracy.metric import Metric as Metric
    from hwsearch.accuracy.sources import load_task as load_task
    from hwsearch.accuracy.task import Samples as Samples, Task as Task
    from hwsearch.api import Run as Run, confirm as confirm, resume as resume, search as search
    from hwsearch.architectures import Architecture as Architecture, Architectures as Architectures
    from hwsearch.choices import Choice as Choice
    from hwsearch.constraints import Constraint as Constraint
    from hwsearch.devices import load_device as load_device, measure as measure
    from hwsearch.elastic.pytorch.cut import cut as cut
    from hwsearch.errors import (
        HwsearchError as HwsearchError,
        InfeasibleError as InfeasibleError,
        InputError as InputError,
    )
    from hwsearch.kit.build import make_kit as make_kit
    from hwsearch.loading import elastify as elastify, load_supernet as load_supernet
    from hwsearch.models.export import to_onnx as to_onnx
    from hwsearch.objectives import Estimate as Estimate, Objective as Objective
    from hwsearch.optimizer.optimize import optimize as optimize
    from hwsearch.optimizer.optimizer import Optimizer as Optimizer
    from hwsearch.prediction import Predictor as Predictor
    from hwsearch.space import SearchSpace as SearchSpace
    from hwsearch.supernets.checkpoint_import import import_checkpoint as import_checkpoint
    from hwsearch.supernets.zoo import supernet_names as supernet_names

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())
# ONNX Runtime 1.29 and later sends usage data on Linux and macOS, from a thread of its own, unless
# this is set before it is loaded. Processes that time and score models inherit it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_EXPORTS = {
    "choices": ("Choice",),
    "space": ("SearchSpace",),
    "architectures": ("Architecture", "Architectures"),
    "objectives": ("Estimate", "Objective"),
    "constraints": ("Constraint",),
    "optimizer.optimize": ("optimize",),
    "optimizer.optimizer": ("Optimizer",),
    "prediction": ("Predictor",),
    "supernets.zoo": ("supernet_names",),
    "loading": ("load_supernet", "elastify"),
    "supernets.checkpoint_import": ("import_checkpoint",),
    "accuracy.sources": ("load_task",),
    "accuracy.task": ("Task", "Samples"),
    "accuracy.metric": ("Metric",),
    "models.export": ("to_onnx",),
    "elastic.pytorch.cut": ("cut",),
    "devices": ("load_device", "measure"),
    "api": ("search", "resume", "confirm", "Run"),
    "kit.build": ("make_kit",),
    "errors": ("HwsearchError", "InputError", "InfeasibleError"),
}
_HOMES = {name: module for module, names in _EXPORTS.items() for name in names}
__all__ = list(_HOMES)


if not TYPE_CHECKING:  # mypy would accept any missing name as Any

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'hwsearch' has no attribute {name!r}")
        value = getattr(import_module(f"hwsearch.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
