"""Checks that a file is what its card claims."""
