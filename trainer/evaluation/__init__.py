"""The best model of a run, measured and compared with baselines."""
