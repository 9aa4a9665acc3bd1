"""The best model of a run beside baselines."""
