"""Rows sent and received: what does not match is named by kind."""

from beam_jobs.runtime.row_accounting import ACCOUNTING_TAG, missing, received, sent


def test_kinds_of_which_as_many_are_received_as_sent_are_left_out():
    outputs = [sent("a", 2), sent("b", 5), received("a", 3), sent("a", 1), received("b", 4)]
    outputs += [received("c", 2), sent("d", 0)]
    assert {output.tag for output in outputs} == {ACCOUNTING_TAG}
    assert missing(output.value for output in outputs) == {"b": 1, "c": -2}
    assert missing([]) == {}
