"""Measurements: errors, joules, memory, and what made a figure."""
