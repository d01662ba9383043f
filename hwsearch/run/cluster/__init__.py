"""Evaluation of proposed architectures: in this process, or on the nodes of a Ray cluster."""
