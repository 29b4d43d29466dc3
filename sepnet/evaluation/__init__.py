"""Figures of whole songs, for `sepnet.evaluate`: those of a song, of all songs, floors and ceilings, published ones."""
