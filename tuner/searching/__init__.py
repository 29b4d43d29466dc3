"""Running a search: its space, its settings, KerasTuner's tuner and oracles, workers, and the records they leave."""
