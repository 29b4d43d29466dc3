"""From tracks to batches on the device, and what is done to them there."""

# Options by name, in the order in which they are applied, imported on use; see `pipelines.batches.stem_changes`. A new
# one is a file, and a line here, at the end: the random numbers of each depend on its place.
AUGMENTATIONS = {
    "remix": "pipelines.batches.stem_changes:remix",
    "random_gain_db": "pipelines.batches.stem_changes:random_gain",
    "channel_swap": "pipelines.batches.stem_changes:channel_swap",
    "polarity": "pipelines.batches.stem_changes:polarity",
    "speed_semitones": "pipelines.batches.stem_changes:speed",
}
