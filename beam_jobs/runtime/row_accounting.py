"""Accounting of rows between stages: a runner may lose or repeat data and still report success.

A stage says how many rows it has sent and the next one how many it has received, in outputs that
travel apart from the rows themselves.
"""

from collections.abc import Iterable

import apache_beam as beam

ACCOUNTING_TAG = "row_accounting"  # (kind of rows, number): positive if sent, negative if received


def sent(kind: str, rows: int) -> beam.pvalue.TaggedOutput:
    """Rows sent, as an output tagged ACCOUNTING_TAG."""
    return beam.pvalue.TaggedOutput(ACCOUNTING_TAG, (kind, rows))


def received(kind: str, rows: int) -> beam.pvalue.TaggedOutput:
    """Rows received, as an output tagged ACCOUNTING_TAG."""
    return beam.pvalue.TaggedOutput(ACCOUNTING_TAG, (kind, -rows))


def missing(accounting: Iterable[tuple[str, int]]) -> dict[str, int]:
    """By kind, the rows that were sent and not received; negative if more came than were sent.

    Kinds of which as many were received as sent are left out.
    """
    sums: dict[str, int] = {}
    for kind, rows in accounting:
        sums[kind] = sums.get(kind, 0) + rows
    return {kind: rows for kind, rows in sums.items() if rows}
