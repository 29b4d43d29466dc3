"""Bodies: the U-Net between front and head, each a section of options with its own `apply`."""
