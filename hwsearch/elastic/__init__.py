"""Elastic models: a trained ONNX model made a supernet by analysis, without training."""
