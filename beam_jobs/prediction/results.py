"""What bulk prediction made of its input: the result of each part, and of all together."""

import collections
import json
from collections.abc import Sequence
from typing import Any

from beam_jobs.contract import places
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import ShardInfo
from beam_jobs.contract.saved_model import SavedModel
from beam_jobs.contract.sections.data import DataConfig, LinesData
from beam_jobs.contract.validation import Section
from beam_jobs.runtime.generations import Generation
from beam_jobs.sources.documents import BLANK_LINE, UNREADABLE


class PartResult(Section):
    """What became of one part of the input; its file in the work directory says it is done."""

    read: int
    rejected: dict[str, int]
    may_be_rows: int = 0
    predictions: ShardInfo
    rejects: ShardInfo | None

    def files(self) -> list[ShardInfo]:
        """What the part has written."""
        return [self.predictions] if self.rejects is None else [self.predictions, self.rejects]


def _totals(results: Sequence[PartResult]) -> tuple[int, int, collections.Counter[str]]:
    """Documents read, those scored, and the others by the reason of their reject."""
    rejected: collections.Counter[str] = collections.Counter()
    for result in results:
        rejected.update(result.rejected)
    read = sum(result.read for result in results)
    return read, sum(result.predictions.examples for result in results), rejected


def check_accounted(results: Sequence[PartResult], *, num_parts: int) -> None:
    """Raises RuntimeError unless every part is done, and every document scored or rejected."""
    read, written, rejected = _totals(results)
    if len(results) != num_parts or read != written + rejected.total():
        raise RuntimeError(
            f"the runner lost or repeated data, so nothing is published: {len(results)} of "
            f"{num_parts} parts are done, and of {read:,} documents {written:,} are scored and "
            f"{rejected.total():,} rejected"
        )


def check_usable(
    results: Sequence[PartResult], data: DataConfig | LinesData, generation: Generation
) -> None:
    """Raises UserError if a file cannot be read to its end, too much is rejected, or all is."""
    read, written, rejected = _totals(results)
    if not read:
        raise UserError("--input: the files hold no documents; expected at least one")
    if rejected[UNREADABLE]:
        raise UserError(
            f"--input: {rejected[UNREADABLE]:,} files cannot be read to their end, such as "
            f"{_examples(results, generation)[UNREADABLE]}; nothing is published"
        )
    blank = rejected[BLANK_LINE]
    is_too_much = rejected.total() - blank > data.max_reject_fraction * (read - blank)
    if is_too_much or not written:
        examples = _examples(results, generation)
        reasons = "".join(
            f"\n  {count:,} x {reason}, such as {examples[reason]}"
            for reason, count in rejected.most_common()
        )
        limit = (
            f"more than --max-reject-fraction {data.max_reject_fraction:g} allows, so nothing is "
            "published; raise it only for documents that you can do without"
        )
        raise UserError(
            f"{rejected.total():,} of {read:,} documents are rejected, "
            f"{limit if is_too_much and written else 'so there is nothing to publish'}:{reasons}"
        )


def _examples(results: Sequence[PartResult], generation: Generation) -> dict[str, str]:
    """By the reason of rejects, the first of them."""
    examples: dict[str, str] = {}
    for info in (result.rejects for result in results if result.rejects):
        with places.open_local(places.join(generation.directory, info.file)) as stream:
            for reject in map(json.loads, stream):
                examples.setdefault(
                    reject["reason"], f"{reject['source']}, row {reject['row']}: {reject['detail']}"
                )
    return examples


def summary(
    results: Sequence[PartResult],
    model: SavedModel,
    *,
    signature: str,
    files: Sequence[ShardInfo],
) -> dict[str, Any]:
    """What the output holds."""
    read, written, rejected = _totals(results)
    origin = model.origin()
    may_be_rows = sum(result.may_be_rows for result in results)
    return {
        "model": model.path,
        "saved_model_fingerprint": origin["saved_model_fingerprint"],
        "signature": signature,
        "read": read,
        "written": written,
        "rejected": dict(sorted(rejected.items(), key=lambda item: (-item[1], item[0]))),
        "files": [info.model_dump() for info in files],
    } | ({"may_be_rows": may_be_rows} if may_be_rows else {})
