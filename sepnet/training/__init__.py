"""From a config and tracks to weights."""
