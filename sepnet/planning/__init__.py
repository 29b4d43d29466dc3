"""Costs of a config, known before anything is trained."""
