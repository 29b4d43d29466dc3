"""Audio files and pipes, read block by block."""
