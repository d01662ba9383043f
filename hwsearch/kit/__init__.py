"""Measurement kits: one file that measures models where hwsearch is not installed."""
