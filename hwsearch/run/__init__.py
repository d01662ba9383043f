"""One search from start to exported front: the run folder and what happens in it."""
