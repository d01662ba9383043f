"""PyTorch modules: exported, and cut as an architecture says."""
