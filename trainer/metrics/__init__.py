"""Streamed metrics, ranking, thresholds, calibration and intervals."""
