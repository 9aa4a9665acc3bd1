"""Rows that a stage sends and receives, told apart from the rows themselves: what a runner loses or repeats between them is missed."""

from collections.abc import Iterable

import apache_beam as beam

BALANCE_TAG = (
    "balance"  # (what, rows): rows sent, and with a minus rows received; together 0 of each
)


def entry(what: str, rows: int) -> beam.pvalue.TaggedOutput:
    """Rows sent, or with a minus rows received, as an output tagged BALANCE_TAG."""
    return beam.pvalue.TaggedOutput(BALANCE_TAG, (what, rows))


def imbalance(balance: Iterable[tuple[str, int]]) -> int:
    """Rows that were sent and not received, or received and not sent: not 0 means that the runner lost or repeated some."""
    sums: dict[str, int] = {}
    for what, rows in balance:
        sums[what] = sums.get(what, 0) + rows
    return sum(map(abs, sums.values()))
