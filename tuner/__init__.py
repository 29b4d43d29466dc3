"""The depth search: KerasTuner over `sepnet`'s configurations. Knows no audio file and no layer."""
