"""Rows of sparse matrices in the graph: CSR tables whose rows are gathered."""

import tensorflow as tf

from beam_jobs.contract.ragged import rows_of_values


def positions_of_rows(row_splits: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the cells of some rows lie in a CSR table.

    Without tf.repeat, which pads each row to the longest, and tf.ragged.range, which has no GPU
    kernel.

    Args:
      row_splits: int64 [rows of the table + 1].
      rows: int64 [n], may repeat.

    Returns:
      (int64 [cells], the index in `rows` that each cell belongs to, rising; int64 [cells], the
      cell's position in the table).
    """
    starts = tf.gather(row_splits, rows)
    lengths = tf.gather(row_splits, rows + 1) - starts
    ends = tf.cumsum(lengths)
    num_cells = tf.reduce_sum(lengths)
    owners = rows_of_values(ends, num_cells)
    firsts = tf.gather(starts - (ends - lengths), owners)
    return owners, firsts + tf.range(num_cells)
