"""From a collection of captioned songs to a stem set: what a worker does, and who sees to the workers."""
