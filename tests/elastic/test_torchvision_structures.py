"""Groups of torchvision's models with random weights, and that slices equal zeros in them."""

import pytest
import torch
import torchvision

from hwsearch.elastic.analysis.structure import analyse
from hwsearch.elastic.reading import read_graph
from hwsearch.elastic.summary import summary_of
from tests.elastic.miniature_networks import exported, randomised
from tests.elastic.removal import difference, kept_units, macs_after

# Share of MACs that shrink with a group, groups, branches, and the MACs left of halves of all.
EXPECTED = {
    "resnet18": (1.0, 12, 5, 0.27),
    "resnet50": (1.0, 37, 12, 0.26),
    "mobilenet_v2": (1.0, 25, 10, 0.29),
    "mobilenet_v3_small": (1.0, 27, 6, 0.32),
    "efficientnet_b0": (1.0, 40, 9, 0.29),
    "densenet121": (1.0, 120, 0, 0.27),
    "googlenet": (1.0, 57, 0, 0.27),
    "inception_v3": (1.0, 94, 0, 0.26),
    "regnet_y_400mf": (1.0, 38, 12, 0.32),
    "shufflenet_v2_x1_0": (0.999, 31, 0, 0.36),
    "convnext_tiny": (0.93, 18, 18, 0.54),
    "swin_t": (0.92, 24, 24, 0.55),
    "vit_b_16": (0.95, 24, 24, 0.51),
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", EXPECTED)
def test_groups_of_torchvision(name):
    options = {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": False}
    pixels = 299 if name == "inception_v3" else 224
    network = randomised(getattr(torchvision.models, name)(weights=None, **options))
    found = analyse(read_graph(exported(network, (torch.zeros(2, 3, pixels, pixels),))))
    share, groups, branches, left = EXPECTED[name]
    assert summary_of(found).elastic >= share
    assert (len(found.groups), len(found.branches)) == (groups, branches)
    kept = kept_units(found.groups)
    assert difference(found, kept) < 1e-5
    assert macs_after(found, kept) <= left * sum(each.macs for each in found.work)
