"""A document that is far too large, for every source."""

import pytest

from beam_jobs.sources.documents import Reject
from beam_jobs.sources.fields import TOO_LONG
from tests.three_documents import WRITERS, of_the_middle


@pytest.mark.parametrize("source", WRITERS)
def test_a_document_of_30_megabytes_is_a_reject_of_little_content(source, tmp_path):
    reject = of_the_middle(source, tmp_path, text="many words " * 2_800_000)
    assert isinstance(reject, Reject) and reject.reason == TOO_LONG
    assert "max_row_bytes = 16,777,216" in reject.detail and len(reject.content) <= 65_536
