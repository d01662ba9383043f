"""Accuracy of a subnet: tasks (data plus a per-sample metric), recalibration, scoring."""
