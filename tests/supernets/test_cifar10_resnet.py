import json

import numpy as np
import pytest

from hwsearch import load_supernet, load_task
from hwsearch.accuracy.recalibrate import recalibrate
from hwsearch.models.module_outputs import torch_outputs
from hwsearch.supernets.weight_sources import bundled_file

NAME = "cifar10-resnet"
WEIGHTS = bundled_file(NAME, "weights.safetensors")
SAMPLES = bundled_file(NAME, "samples.npz")
shipped = pytest.mark.skipif(
    not (WEIGHTS.is_file() and SAMPLES.is_file()),
    reason=f"needs the weights and images that ship with {NAME}",
)


@pytest.fixture(scope="module")
def net():
    return load_supernet(NAME, "random:0")


def test_there_is_enough_to_choose_from(net):
    assert net.space.size >= 1_000_000
    ends = [net.space.smallest(), net.space.largest()]
    smallest, largest = (int(net.exact("macs", arch)[0]) for arch in ends)
    assert largest >= 10 * smallest


def test_costs_of_the_ends(net):
    """Worked out by hand: stem, then for each stage its transition and its blocks, then head."""
    smallest = sum(
        [
            1024 * 9 * 3 * 40,
            256 * 9 * 40 * 20,
            64 * 9 * (20 * 40 + 2 * 40 * 20),
            16 * 9 * (40 * 80 + 2 * 80 * 40),
            80 * 10,
        ]
    )
    largest = sum(
        [
            1024 * 9 * 3 * 40,
            256 * 9 * (40 * 40 + 2 * 2 * 40 * 40),
            64 * 9 * (40 * 80 + 3 * 2 * 80 * 80),
            16 * 9 * (80 * 160 + 3 * 2 * 160 * 160),
            160 * 10,
        ]
    )
    assert int(net.exact("macs", net.space.smallest())[0]) == smallest
    assert int(net.exact("macs", net.space.largest())[0]) == largest


def test_depth_zero_is_only_the_transition(net):
    arch = net.space.smallest()[0]
    names = [block.name for block in net.blocks(arch)]
    assert names == [
        "stem",
        "stage1.pool",
        "stage1.transition",
        "stage2.pool",
        "stage2.transition",
        "stage2.block1",
        "stage3.pool",
        "stage3.transition",
        "stage3.block1",
        "head",
    ]


def test_images_are_normalised_as_trained(net):
    spec = net.input_spec(net.space.largest()[0])
    assert spec.inputs[0].shape == (3, 32, 32)
    assert len(spec.classes) == 10
    assert spec.preprocessing.mean == pytest.approx((0.4914, 0.4822, 0.4465))


@shipped
def test_what_ships_is_small_and_complete():
    assert WEIGHTS.stat().st_size < 10e6
    assert SAMPLES.stat().st_size < 20e6
    net = load_supernet(NAME)
    assert net.card.licence
    assert net.card.data
    json.dumps(dict(net.card.facts))
    assert net.digest != load_supernet(NAME, "random:0").digest
    task = load_task("bundled", net.input_spec(net.space.largest()[0]), NAME)
    sizes = {split: len(getattr(task, split)) for split in ("calibration", "search", "report")}
    assert sizes == {"calibration": 500, "search": 2500, "report": 2500}
    assert (np.bincount(task.search.targets, minlength=10) == 250).all()
    assert (np.bincount(task.report.targets, minlength=10) == 250).all()


@shipped
def test_larger_is_better():
    net = load_supernet(NAME)
    task = load_task("bundled", net.input_spec(net.space.largest()[0]), NAME)
    calibration = [next(task.calibration.batches(250))[0]]
    fed, targets = next(task.report.batches(400))

    def top1(archs):
        subnet = recalibrate(net.subnet(archs[0]), net.recalibrate, iter(calibration))
        return float((torch_outputs(subnet, fed)[0].argmax(axis=1) == targets).mean())

    smallest, largest = top1(net.space.smallest()), top1(net.space.largest())
    assert smallest > 0.7
    assert largest > smallest + 0.02
