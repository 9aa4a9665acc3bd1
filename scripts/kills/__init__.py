"""Killing the commands of the product, for `scripts/soak.py`."""
