"""Which units matter, and the weights of what is left."""
