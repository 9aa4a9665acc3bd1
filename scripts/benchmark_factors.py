#!/usr/bin/env python3
"""What a worker takes to work out the embeddings' gradient from the factors of several workers.

All of them are made in this process, which exchanges nothing: documents of `--terms` terms drawn by
Zipf's law from a vocabulary. Prints a row of a Markdown table for each number of workers; the last
column is what another worker's documents add, by a term and dimension, the best of `--repeats`.

  python scripts/benchmark_factors.py --documents 1024 4096
"""

import argparse
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from trainer.training.exchange import _Factors  # noqa: E402


class _Made:
    """The vectors' gradients of so many workers, as if they had been gathered."""

    def __init__(self, upstream: np.ndarray):
        self.workers, self._upstream = len(upstream), tf.constant(upstream)

    def gather(self, own: tf.Tensor) -> tf.Tensor:
        return self._upstream


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--terms", type=int, default=82, help="of a document (%(default)s)")
    parser.add_argument("--dim", type=int, default=128, help="default %(default)s")
    parser.add_argument("--vocabulary", type=int, default=50_000, help="default %(default)s")
    parser.add_argument("--repeats", type=int, default=5, help="default %(default)s")
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    print("| documents a worker | workers | ms | ns a term and dimension of another's |")
    print("|---:|---:|---:|---:|", flush=True)
    for documents in arguments.documents:
        alone = None
        for workers in arguments.workers:
            seconds = measure(arguments, documents, workers)
            alone = seconds if alone is None else alone
            of_others = (workers - arguments.workers[0]) * documents
            added = 1e9 * (seconds - alone) / (of_others * arguments.terms * arguments.dim or 1)
            print(f"| {documents:,} | {workers} | {1e3 * seconds:.1f} | {added:.2f} |", flush=True)


def measure(arguments: argparse.Namespace, documents: int, workers: int) -> float:
    """The least processor seconds of working out the gradient once."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, arguments.vocabulary + 1)
    drawn = [
        rng.choice(arguments.vocabulary, documents * arguments.terms, p=share / share.sum())
        for _ in range(workers)
    ]
    rows, positions = zip(*(np.unique(one, return_inverse=True) for one in drawn), strict=True)
    longest = max(map(len, rows))
    upstream = rng.standard_normal((workers, documents, arguments.dim), np.float32)
    columns = [
        np.stack([np.pad(one, (0, longest - len(one)), mode="edge") for one in rows]),
        np.tile(np.repeat(np.arange(documents), arguments.terms), (workers, 1)),
        np.stack(positions),
        np.full((workers, documents * arguments.terms), 0.1, np.float32).view(np.int32),
    ]
    columns = [tf.constant(column, tf.int32) for column in columns]
    shape = (arguments.vocabulary, arguments.dim)
    gradient = tf.IndexedSlices(tf.zeros([1, arguments.dim]), tf.constant([0]), tf.constant(shape))
    factors = _Factors(gradient, None, tf.constant(upstream[0]))
    made = _Made(upstream)
    total = tf.function(lambda *given: factors.total(list(given), made).values)
    total(*columns)  # traced
    times = []
    for _ in range(arguments.repeats):
        began = time.process_time()
        total(*columns).numpy()
        times.append(time.process_time() - began)
    return min(times)


if __name__ == "__main__":
    main()
