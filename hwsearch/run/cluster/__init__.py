"""Who evaluates for a search: this process, a pool of processes, or the nodes of a Ray cluster."""
