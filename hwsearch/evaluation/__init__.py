"""Values of architectures: built, measured, computed or taken from the store."""
