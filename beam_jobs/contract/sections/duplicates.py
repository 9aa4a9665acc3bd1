"""The section `duplicates`: what becomes of near-duplicates."""

from typing import Literal

from pydantic import Field

from beam_jobs.contract.validation import Section


class DuplicatesConfig(Section):
    """Near-duplicates: documents that share most of their shingles, found by MinHash.

    Documents with equal analyzed text are always merged.
    """

    near: Literal["ignore", "report", "drop"] = Field(
        "ignore",
        description="report: count those that are in several splits, in statistics.json; drop: "
        "keep one of each, of the last split; the labels of the others are dropped with them",
    )
    similarity: float = Field(
        0.8,
        ge=0.5,
        le=1,
        description="minimum Jaccard similarity of the sets of shingles of two near-duplicates",
    )
    shingle_tokens: int = Field(3, ge=1, le=16, description="consecutive tokens in a shingle")
