"""Much of something: files, bytes of one, a long line, tokens or labels of one document."""

import json
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from beam_jobs.contract import manifest as manifests
from kills import attempts
from kills.outcomes import SECONDS, Ended, Seen, run
from kills.stages import STAGES, write_inputs

_MANY_FILES, _MANY_TOKENS, _MANY_LABELS = 10_000, 1_000_000, 200_000
_ROWS_OF_GIGABYTE = 1_000_000  # of 1,000 bytes each
_LONG_LINE = 100_000_000


def _home(wholes: attempts.Wholes) -> Path:
    """A folder with the inputs of all others."""
    empty = wholes.folder / "empty"
    empty.mkdir(exist_ok=True)
    home = attempts.home_of(empty, wholes.folder / "home")
    write_inputs(home)
    return home


def _seen(fault: str, stage: str, ended: Ended, home: Path, told: str, *, is_well: bool) -> Seen:
    took = f"{ended.processor_seconds:.0f} s of a core, {ended.peak_mb:,.0f} MB"
    came = took if ended.status == 0 else ended.in_words(home)
    return Seen(fault, stage, came, told, is_well and ended.is_clean)


def _preprocessed(fault: str, home: Path, written: int, *more: str, limit: float = SECONDS) -> Seen:
    """Preprocessing: it must have written so many documents."""
    ended = run(STAGES["preprocess"], home, *more, limit=limit)
    try:
        counts = manifests.load(home / "out/small/dataset").counts
    except (OSError, ValueError):
        return _seen(fault, "preprocess", ended, home, "no dataset", is_well=False)
    told = f"{counts.written:,} documents, rejects: {counts.rejected}"
    return _seen(fault, "preprocess", ended, home, told, is_well=counts.written == written)


def _chained(
    fault: str,
    home: Path,
    written: int,
    *settings: str,
    of_predict: tuple[str, ...] = (),
) -> Iterator[Seen]:
    """All stages, one after another, as far as they come."""
    yield (seen := _preprocessed(fault, home, written, *settings))
    for name in ("train", "evaluate", "export", "predict"):
        if not seen.is_well:
            return
        ended = run(STAGES[name], home, *(of_predict if name == "predict" else settings))
        scored = re.search(r"read [\d,]+ documents: .*", ended.printed)
        told = scored[0] if scored else ""
        yield (seen := _seen(fault, name, ended, home, told, is_well=ended.status == 0))


def _append(home: Path, rows: Iterable[dict]) -> None:
    with open(home / "documents.jsonl", "a", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row) + "\n")


def files(wholes: attempts.Wholes) -> Iterator[Seen]:
    """10,000 files of two documents each."""
    home = _home(wholes)
    (home / "parts").mkdir()
    for number in range(_MANY_FILES):
        rows = [
            {"key": f"{number}-{i}", "text": f"document {number} of {i}", "labels": [f"l{i}"]}
            for i in range(2)
        ]
        content = "".join(json.dumps(row) + "\n" for row in rows)
        (home / f"parts/{number:05d}.jsonl").write_text(content, encoding="utf-8")
    settings = ("--set", "data.inputs=['parts/*.jsonl']")
    of_predict = ("--input", "parts/*.jsonl")
    yield from _chained("10,000 files", home, 2 * _MANY_FILES, *settings, of_predict=of_predict)


def gigabyte(wholes: attempts.Wholes) -> Iterator[Seen]:
    """One file of 1 GB."""
    yield _of_one_file(wholes, 1)


def five_gigabytes(wholes: attempts.Wholes) -> Iterator[Seen]:
    """One file of 5 GB."""
    yield _of_one_file(wholes, 5)


def _of_one_file(wholes: attempts.Wholes, gigabytes: int) -> Seen:
    """Of each GB a million rows of 100 bytes of text and 900 of another field; then it goes."""
    home = _home(wholes)
    more, rows = "more of it " * 80, gigabytes * _ROWS_OF_GIGABYTE
    path = home / "large.jsonl"
    with open(path, "w", encoding="utf-8") as stream:
        for number in range(rows):
            text = f"document {number} {number % 1000} " + "of some words " * 5
            row = {"key": f"{number}", "text": text, "labels": ["abcde"[number % 5]], "more": more}
            stream.write(json.dumps(row) + "\n")
    try:
        inputs = ("--set", f"data.inputs=[{path.name}]")
        limit = gigabytes * SECONDS
        return _preprocessed(f"a file of {gigabytes} GB", home, rows, *inputs, limit=limit)
    finally:
        path.unlink()


def long_line(wholes: attempts.Wholes) -> Iterator[Seen]:
    """One line of 100 MB, which is more than a row may have, and then with such rows allowed."""
    home = _home(wholes)
    words = "a line that never ends " * (_LONG_LINE // 23)
    _append(home, [{"key": "long", "text": words, "labels": ["a"]}])
    yield _preprocessed("a line of 100 MB", home, 500)
    allowed = ("--set", "data.max_row_bytes=200000000", "--overwrite")
    yield _preprocessed("a line of 100 MB, which is allowed", home, 501, *allowed)


def tokens(wholes: attempts.Wholes) -> Iterator[Seen]:
    """Six documents of a million tokens, of which 512 are kept, and all."""
    for kept in ("512", "null"):
        home = _home(wholes)
        rng = random.Random(0)
        _append(
            home,
            (
                {
                    "key": f"long{i}",
                    "text": " ".join(f"word{rng.randrange(2000)}" for _ in range(_MANY_TOKENS)),
                    "labels": ["a"],
                }
                for i in range(6)
            ),
        )
        fault = f"a million tokens, kept: {'all' if kept == 'null' else kept}"
        yield from _chained(fault, home, 506, "--set", f"text.max_tokens_per_document={kept}")


def labels(wholes: attempts.Wholes) -> Iterator[Seen]:
    """200,000 labels on one document."""
    home = _home(wholes)
    names = [f"label {i}" for i in range(_MANY_LABELS)]
    _append(home, [{"key": "many", "text": "a document of everything", "labels": names}])
    yield from _chained("200,000 labels", home, 501, "--set", "labels.min_count=1")


KINDS = {
    "files": files,
    "gigabyte": gigabyte,
    "five-gigabytes": five_gigabytes,
    "long-line": long_line,
    "tokens": tokens,
    "labels": labels,
}
