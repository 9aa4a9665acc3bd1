"""Predicting what many documents take, for `scripts/predict_scale.py`."""
