"""Losses for label imbalance, sampled negatives, and undoing what a loss's weights do to the scores."""
