"""Runs and models side by side: on validation segments, and on one song."""
