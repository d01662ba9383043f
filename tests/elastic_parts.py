"""A trained model as a user has it, and samples of its inputs."""

import numpy as np
import onnx
import onnxruntime
from sliced_network import graph_of, trained

SIZES = {"calibration": 96, "search": 120, "report": 60}


def write_model(path, seed=0):
    """Write a small CNN with random weights as an ONNX file."""
    onnx.save(graph_of(trained(seed), with_block=True), path)
    return path


def write_samples(path, model, seed=0, *, labelled=True):
    """Write random images as arrays, labelled with the answers of a model file."""
    rng = np.random.default_rng(seed)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    arrays = {}
    for split, n in SIZES.items():
        images = rng.standard_normal((n, 3, 8, 8)).astype(np.float32)
        arrays[f"{split}.image"] = images
        if labelled:
            arrays[f"{split}.target"] = session.run(None, {"image": images})[0].argmax(axis=1)
    np.savez(path, **arrays)
    return f"npz:{path}"
