"""What a run looks like: the picture of its front."""
