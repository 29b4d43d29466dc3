"""What `sepnet.evaluate` is made of: figures of a song, of all songs, floors and ceilings, published ones."""
