"""The section `splits`: which documents train, validate and test."""

import math
from typing import Literal

import pydantic
from pydantic import Field

from beam_jobs.contract.times import parse_time
from beam_jobs.contract.validation import Fraction, Section


class _Fractions(Section):
    train: Fraction = Field(0.8, description="what the model learns from")
    validation: Fraction = Field(
        0.1, description="decides thresholds, the best checkpoint and early stopping"
    )
    test: Fraction = Field(0.1, description="only reported on")

    @pydantic.model_validator(mode="after")
    def _sum_to_one(self):
        if (
            not math.isclose(self.train + self.validation + self.test, 1.0, abs_tol=1e-9)
            or self.train == 0
        ):
            raise ValueError(
                f"expected a sum of 1 with train above 0, not {self.train} + {self.validation} + "
                f"{self.test}"
            )
        return self


class HashSplits(_Fractions):
    """A fraction of the documents in each split, decided by a hash of the analyzed text."""

    method: Literal["hash"] = Field("hash", description="how documents are split")


class StratifiedSplits(_Fractions):
    """A fraction of the documents of every label in each split, rare labels first."""

    method: Literal["stratified"] = Field(description="how documents are split")


class ColumnSplits(Section):
    """The split that the source names; duplicates go to the last one: test, validation, train."""

    method: Literal["column"] = Field(description="how documents are split")
    train: tuple[str, ...] = Field(
        ("train",), min_length=1, description="what the source calls the train split"
    )
    validation: tuple[str, ...] = Field(
        ("validation", "valid", "val", "dev"),
        description="what the source calls the validation split",
    )
    test: tuple[str, ...] = Field(("test",), description="what the source calls the test split")


class FileSplits(Section):
    """The split of the document's file; duplicates go to the last one: test, validation, train."""

    method: Literal["files"] = Field(description="how documents are split")
    validation: tuple[str, ...] = Field(
        (),
        description=(
            "names or glob patterns of the files of the validation split, such as `dev.jsonl` or "
            "`*dev*`; each must match one"
        ),
    )
    test: tuple[str, ...] = Field(
        (),
        description=(
            "names or glob patterns of the files of the test split; all other files are train"
        ),
    )


class TimeSplits(Section):
    """Older documents train, newer ones validate and test; of duplicates, the newest counts."""

    method: Literal["time"] = Field(description="how documents are split")
    validation_from: str = Field(
        description=(
            "ISO 8601 time, such as 2024-01-01, of the first documents that are not train; UTC"
        )
    )
    test_from: str = Field(description="ISO 8601 time of the first documents of the test split")

    @pydantic.model_validator(mode="after")
    def _times_in_order(self):
        try:
            first, second = parse_time(self.validation_from), parse_time(self.test_from)
        except ValueError as error:
            raise ValueError(f"expected times in ISO 8601, such as 2024-01-31: {error}") from None
        if first > second:
            raise ValueError(
                f"expected validation_from before test_from, not {self.validation_from} and "
                f"{self.test_from}"
            )
        return self


class TimeFractionSplits(_Fractions):
    """A fraction of the documents in each split: the oldest train, the newest test.

    Of duplicates, the newest counts.
    """

    method: Literal["time_fractions"] = Field(description="how documents are split")


SplitsConfig = (
    HashSplits | StratifiedSplits | ColumnSplits | FileSplits | TimeSplits | TimeFractionSplits
)
