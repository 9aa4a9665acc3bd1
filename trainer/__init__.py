"""The trainer of multihot: a dataset directory in, a trained, evaluated and exported model out."""
