"""Losses for label imbalance, sampled negatives, and the correction of the logits afterwards."""
