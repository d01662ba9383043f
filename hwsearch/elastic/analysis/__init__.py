"""What depends on what in a graph: groups of units, branches, layers, shapes."""
