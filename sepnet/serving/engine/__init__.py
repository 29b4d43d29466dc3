"""The parts of the server that all routes share: models, songs, limits, metrics."""
