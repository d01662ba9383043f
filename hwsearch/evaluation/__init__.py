"""Evaluation of architectures: models are built, timed and scored, and values stored."""
