"""Tasks whose targets are what the largest subnet answers: smaller ones come close to it."""

import numpy as np

from hwsearch.accuracy.decoding import image_preprocess
from hwsearch.accuracy.metric import TOP1
from hwsearch.accuracy.recalibrate import recalibrate
from hwsearch.accuracy.task import Samples, Task
from hwsearch.models.module_outputs import torch_outputs
from hwsearch_test_plugin import images, tokens

SIZES = {"calibration": 96, "search": 250, "report": 250}


def image_task(input_spec):
    """Noisy coloured gradients; inputs are stored as bytes."""
    name, side = input_spec.inputs[0].name, input_spec.preprocessing.crop
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 255, (sum(SIZES.values()), 2, 2, 3))
    ramp = np.linspace(0, 1, side)
    blend = np.stack([1 - ramp, ramp])
    smooth = np.einsum("nabc,ai,bj->nijc", corners, blend, blend)
    noise = rng.normal(0, 40, smooth.shape)
    pictures = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    fed = image_preprocess(input_spec.preprocessing)
    return _task("hwsearch_test_plugin:image_task", images, name, pictures, {name: fed})


def token_task(input_spec):
    """Random sequences."""
    (spec,) = input_spec.inputs
    rng = np.random.default_rng(2)
    sequences = rng.integers(0, spec.high, (sum(SIZES.values()), *spec.shape))
    return _task("hwsearch_test_plugin:token_task", tokens, spec.name, sequences, {})


def _task(spec, module, name, arrays, preprocess):
    net = module.FAMILY.load(None)
    ready = preprocess[name](arrays) if preprocess else arrays
    teacher = net.subnet(net.space.largest()[0])
    recalibrate(teacher, net.recalibrate, iter([{name: ready}]))
    (scores,) = torch_outputs(teacher, {name: ready})
    targets = scores.argmax(axis=1)
    ends = np.cumsum(list(SIZES.values()))
    splits = {
        split: Samples({name: arrays[end - size : end]}, targets[end - size : end], preprocess)
        for (split, size), end in zip(SIZES.items(), ends, strict=True)
    }
    return Task(spec=spec, metric=TOP1, **splits)
