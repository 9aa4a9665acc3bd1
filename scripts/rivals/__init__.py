"""Preprocessing done in other ways, for `scripts/benchmark_preprocessing.py`."""
