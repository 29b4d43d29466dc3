"""Songs on disk to batches on the device: finding, reading, streaming, mixing and spectra. Knows no model."""
