"""Sections of options: frozen dataclasses, from which the flags, the JSON and the checks follow."""
