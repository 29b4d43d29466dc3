"""Collections of songs with captions: a folder, a manifest or WebDataset shards, on this machine or elsewhere."""
