"""The supernet families, the zoo that names them, and their checkpoints."""
