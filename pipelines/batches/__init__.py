"""From tracks to batches on the device, and what is done to them there."""
