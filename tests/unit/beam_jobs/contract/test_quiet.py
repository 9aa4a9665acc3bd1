"""What is not logged while a library is imported."""

import logging

import pytest

from beam_jobs.contract.quiet import no_beam_warnings


def test_warnings_are_left_out_within_the_block_alone_and_errors_never(caplog):
    caplog.set_level(logging.WARNING)  # another test may have left the root logger at another
    with pytest.raises(ImportError), no_beam_warnings():
        logging.warning("apitools not found")
        logging.error("a failure")
        raise ImportError
    logging.warning("after it")
    assert [record.message for record in caplog.records] == ["a failure", "after it"]
