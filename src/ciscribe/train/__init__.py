"""Training, evaluation and the baselines that stand beside every model."""
