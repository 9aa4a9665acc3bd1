import dataclasses

import pytest

from beam_jobs.contract.errors import UserError
from trainer.evaluation.baselines import check_fits


@dataclasses.dataclass
class Size:
    """The sizes of a dataset."""

    documents: int = 1000
    num_labels: int = 10

    def num_examples(self, split):
        return self.documents if split == "train" else 0


def test_a_dataset_that_fits_is_let_through():
    check_fits(Size())


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (Size(documents=300_000), "received 300,000 train documents, expected at most 200,000"),
        (
            Size(documents=100_000, num_labels=2000),
            "received 200,000,000 train documents x labels, expected at most 100,000,000",
        ),
    ],
)
def test_a_dataset_that_is_too_large_is_a_user_error(size, message):
    with pytest.raises(UserError, match=message):
        check_fits(size)
