"""The parts of `scripts/benchmark_peers.py`, one a file."""
