"""Verification of exported subnets."""
