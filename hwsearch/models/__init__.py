"""ONNX models of subnets: tracing, assembling, converting, counting, and the exported folder."""
