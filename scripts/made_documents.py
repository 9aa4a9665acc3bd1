"""Documents for benchmarks, made of arXiv's abstracts (`get_data.py arxiv`): as many, and with as
many labels, as one wants. The same arguments give the same documents."""

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

WORDS = 50  # of a piece
# The share of a made document's words that are new. 100,000 papers have 464,000 distinct words
# between spaces, 200,000 have 761,000; if that goes on, a million have 2.4 million, so that 1.5% of
# the words of the other 800,000 are new.
_NEW = 0.015
_REPLACED = 0.5  # of a made document's words


def _papers(directory: str) -> Iterator[dict[str, Any]]:
    for path in sorted(Path(directory).glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            yield from map(json.loads, stream)


# --- many documents --------------------------------------------------------------------


def mixed_documents(directory: str, *, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Papers with `id`, `title`, `abstract` and `categories`: the real ones, then made ones.

    A made document is a real one, of which one word in two is replaced by the word at the same
    place of another paper, and of which a few words are new ones that no other document has. So
    none equals another, and distinct words grow with documents as they do in real text.
    """
    papers = []
    for paper in _papers(directory):
        row = {key: paper[key] for key in ("title", "abstract", "categories")}
        yield {"id": str(len(papers)), **row}
        papers.append(row)
    total = len(papers)
    while papers:
        rng = np.random.default_rng([seed, total])
        offsets = rng.integers(1, max(2, len(papers)), size=len(papers)).tolist()
        for index, paper in enumerate(papers):
            other = papers[(index + offsets[index]) % len(papers)]
            yield {
                "id": str(total),
                "title": _mixed(paper["title"], other["title"], rng, total),
                "abstract": _mixed(paper["abstract"], other["abstract"], rng, total),
                "categories": paper["categories"],
            }
            total += 1


def _mixed(text: str, other: str, rng: np.random.Generator, number: int) -> str:
    words, others = text.split(), other.split()
    chances = rng.random(len(words)).tolist()
    for i, chance in enumerate(chances):
        if chance < _NEW:
            words[i] += _letters(number)
        elif chance < _REPLACED and i < len(others):
            words[i] = others[i]
    return " ".join(words)


def _letters(number: int) -> str:
    """A number in letters."""
    letters = ""
    while number:
        number, digit = divmod(number, 26)
        letters += chr(ord("a") + digit)
    return letters


# --- many labels -----------------------------------------------------------------------


def pieces(directory: str) -> Iterator[list[str]]:
    """Runs of WORDS words of one abstract, in lower case."""
    for paper in _papers(directory):
        words = re.findall(r"[a-z]+", paper["abstract"].lower())
        for start in range(0, len(words) - WORDS + 1, WORDS):
            yield words[start : start + WORDS]


def rare_pairs(
    texts: list[list[str]], num_labels: int, *, each: int
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The rarest pairs of neighbouring words of each document, of the most frequent pairs.

    Args:
      texts: documents of WORDS words.
      num_labels: so many pairs, the most frequent, are labels.
      each: labels of a document, at most.

    Returns:
      documents, int64 [n], rising; which of the names each has, int64 [n]; the names.
    """
    id_of: dict[str, int] = {}
    ids = np.array([[id_of.setdefault(word, len(id_of)) for word in text] for text in texts])
    codes, pairs = np.unique(ids[:, :-1] * len(id_of) + ids[:, 1:], return_inverse=True)
    documents = np.repeat(np.arange(len(texts)), WORDS - 1)
    cells = np.unique(documents * len(codes) + pairs.reshape(-1))
    documents, pairs = cells // len(codes), cells % len(codes)
    counts = np.bincount(pairs, minlength=len(codes))
    is_label = np.zeros(len(codes), bool)
    is_label[np.argsort(-counts, kind="stable")[:num_labels]] = True

    documents, pairs = documents[is_label[pairs]], pairs[is_label[pairs]]
    order = np.lexsort((counts[pairs], documents))
    documents, pairs = documents[order], pairs[order]
    rank = np.arange(len(documents)) - np.searchsorted(documents, documents)
    documents, pairs = documents[rank < each], pairs[rank < each]
    used, pairs = np.unique(pairs, return_inverse=True)
    words = list(id_of)
    names = [f"{words[code // len(id_of)]} {words[code % len(id_of)]}" for code in codes[used]]
    return documents, pairs, names


def write_with_pairs(
    directory: Path, arxiv: str, *, documents: int, labels: int, each: int, files: int
) -> str:
    """Writes pieces with their rarest pairs as `labels` to JSON lines; returns what they hold."""
    texts = [words for words, _ in zip(pieces(arxiv), range(documents), strict=False)]
    owners, pairs, names = rare_pairs(texts, labels, each=each)
    starts = np.searchsorted(owners, np.arange(len(texts) + 1))
    for number in range(files):
        path = directory / f"documents-{number:02d}.jsonl.gz"
        with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as stream:
            for index in range(number, len(texts), files):
                own = pairs[starts[index] : starts[index + 1]]
                row = {
                    "id": str(index),
                    "text": " ".join(texts[index]),
                    "labels": [names[pair] for pair in own.tolist()],
                }
                stream.write(json.dumps(row) + "\n")
    return f"{len(texts):,} documents, {len(names):,} labels, {len(pairs):,} positives"
