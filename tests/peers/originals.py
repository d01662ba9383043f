"""Supernets of the original once-for-all code, with weights and statistics that matter."""

from collections.abc import Callable
from functools import cache

import torch
from torch import nn


def _inverted(cls: Callable[..., nn.Module], width_mult: float) -> nn.Module:
    return cls(
        width_mult=width_mult,
        ks_list=[3, 5, 7],
        expand_ratio_list=[3, 4, 6],
        depth_list=[2, 3, 4],
        dropout_rate=0,
    )


def _build(name: str) -> nn.Module:
    from ofa.imagenet_classification.elastic_nn.networks import (
        OFAMobileNetV3,
        OFAProxylessNASNets,
        OFAResNets,
    )

    if name == "ofa-resnet50":
        return OFAResNets(
            dropout_rate=0,
            depth_list=[0, 1, 2],
            expand_ratio_list=[0.2, 0.25, 0.35],
            width_mult_list=[0.65, 0.8, 1.0],
        )
    if name == "ofa-proxyless-w1.3":
        return _inverted(OFAProxylessNASNets, 1.3)
    return _inverted(OFAMobileNetV3, float(name.removeprefix("ofa-mbv3-w")))


# name -> (keys of its checkpoint, millions of parameters)
NAMES = {
    "ofa-mbv3-w1.0": (475, 7.68),
    "ofa-mbv3-w1.2": (475, 10.72),
    "ofa-proxyless-w1.3": (446, 7.96),
    "ofa-resnet50": (368, 48.11),
}


@cache
def original(name: str) -> nn.Module:
    """Return one original supernet; every weight, statistic and kernel matrix is random."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = _build(name).eval()
        for key, tensor in net.state_dict().items():
            if key.endswith("running_mean") or key.endswith("bias"):
                tensor.normal_(0, 0.1)
            elif key.endswith("running_var") or ("bn" in key and key.endswith("weight")):
                tensor.uniform_(0.5, 1.5)
            elif key.endswith("_matrix"):
                tensor.add_(torch.randn_like(tensor) / 10)
    return net


def active_subnet(name: str, config: dict) -> nn.Module:
    """Return the original's own subnet of a configuration in its own words."""
    net = original(name)
    net.set_active_subnet(**config)
    return net.get_active_subnet(preserve_weight=True).eval()
