"""Everything that a run depends on: options, flags, presets, and the songs that they ask for."""
