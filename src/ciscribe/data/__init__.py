"""Training examples: windows, folds, and the simulated world with known truth."""
