"""What is measured: errors, joules, memory, and what made a figure."""
