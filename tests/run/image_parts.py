"""A supernet whose architectures differ in resolution, named on command lines too."""

import numpy as np
import torch
from torch import nn

from hwsearch.accuracy.metric import TOP1
from hwsearch.accuracy.task import Samples, Task
from hwsearch.choices import Choice
from hwsearch.space import SearchSpace
from hwsearch.supernets.interface import Card
from tests.accuracy.folders import spec_for

NET = "tests.run.image_parts:network"


class Pyramid:
    """Two widths of one convolution at three resolutions."""

    def __init__(self):
        self.space = SearchSpace([Choice("resolution", (8, 12, 16)), Choice("width", (2, 4))])
        self.card = Card(name="pyramid", description="", licence="", source="")
        self.digest = "0" * 64
        self.recalibrate = (nn.BatchNorm2d,)
        self.specs = []

    def subnet(self, arch):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            width = arch["width"]
            return nn.Sequential(
                nn.Conv2d(3, width, 3),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(width, 3),
            )

    def input_spec(self, arch):
        return spec_for(arch["resolution"])

    def blocks(self, arch):
        return None


def network(checkpoint=None):
    return Pyramid()


def arrays(input_spec):
    """Images of one resolution, that of the spec."""
    rng = np.random.default_rng(0)
    shape = input_spec.inputs[0].shape
    splits = {
        split: Samples({"image": rng.random((n, *shape), np.float32)}, np.arange(n) % 3, {})
        for split, n in (("calibration", 8), ("search", 12), ("report", 12))
    }
    return Task(spec="tests.run.image_parts:arrays", metric=TOP1, **splits)
