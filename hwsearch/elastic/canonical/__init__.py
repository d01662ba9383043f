"""Steps from a model as it was exported to its canonical form, on graphs of onnx-ir."""
