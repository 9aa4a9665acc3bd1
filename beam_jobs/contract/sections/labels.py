"""The section `labels`: which labels are kept, and what they are called."""

from typing import Annotated

import pydantic
from pydantic import Field

from beam_jobs.contract.validation import LabelName, Path_, Section


class LabelsConfig(Section):
    """Which labels are kept: names are cleaned, then counted after duplicates are merged."""

    fold_case: bool = Field(
        False,
        description=(
            "fold the case of labels: `Python` and `python` are one; the names below are folded too"
        ),
    )
    aliases: dict[LabelName, LabelName] = Field(
        {},
        description="other names of a label, such as `math-ph: math.MP`; applied after fold_case",
    )
    deny: tuple[LabelName, ...] = Field((), description="labels to leave out")
    allow: None | Annotated[tuple[LabelName, ...], Field(min_length=1)] | Path_ = Field(
        None,
        description=(
            "the only labels to keep: a list, a file with one label per line, a JSON file with a "
            "value for each, or the directory of a dataset; null: all"
        ),
    )
    include: None | Annotated[tuple[LabelName, ...], Field(min_length=1)] | Path_ = Field(
        None,
        description=(
            "labels that the dataset has in any case, also on fewer documents than min_count, "
            "beyond top_k, and on none: given as in allow; null: none"
        ),
    )
    min_count: int = Field(1, ge=1, description="labels on fewer documents are left out")
    top_k: int | None = Field(
        None, ge=1, description="keep only the K most frequent labels; null: no limit"
    )
    keep_unlabeled: bool = Field(
        True, description="keep documents that have none of the kept labels"
    )

    @pydantic.model_validator(mode="after")
    def _aliases_are_not_chained(self):
        fold = str.casefold if self.fold_case else str
        aliases = {fold(name): fold(target) for name, target in self.aliases.items()}
        chained = sorted(
            target for name, target in aliases.items() if aliases.get(target, target) != target
        )
        if chained:
            raise ValueError(
                f"expected aliases of labels that are not aliases themselves, unlike {chained[0]!r}"
            )
        return self
