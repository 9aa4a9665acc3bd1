"""Documents that are made of others: as many as one wants, none twice, the same in every run."""

import gzip
import itertools
import json

import numpy as np
import pytest

from scripts import made_documents


@pytest.fixture
def arxiv(tmp_path):
    """A folder of 30 papers of 60 words each."""
    rng = np.random.default_rng(0)
    with gzip.open(tmp_path / "papers.jsonl.gz", "wt") as stream:
        for number in range(30):
            words = [f"{'abcdefghij'[i]}{'xyz'[i % 3]}" for i in rng.integers(10, size=60)]
            paper = {"title": f"Paper {number}", "abstract": " ".join(words), "more": 1}
            stream.write(json.dumps(paper | {"categories": [f"c{number % 3}"]}) + "\n")
    return str(tmp_path)


def test_made_documents_follow_real_ones_and_mix_their_words(arxiv):
    rows = list(itertools.islice(made_documents.mixed_documents(arxiv), 300))
    assert rows == list(itertools.islice(made_documents.mixed_documents(arxiv), 300))
    assert [row["id"] for row in rows] == [str(number) for number in range(300)]
    assert rows[7]["title"] == "Paper 7" and "more" not in rows[7]
    assert len({row["abstract"] for row in rows}) == 300
    real = set(" ".join(row["abstract"] for row in rows[:30]).split())
    made = " ".join(row["abstract"] for row in rows[30:]).split()
    assert len(made) == 270 * 60
    new = [word for word in made if word not in real]
    assert 0.01 < len(new) / len(made) < 0.02 and len(set(new)) > 0.9 * len(new)
    assert [row["categories"] for row in rows[30:60]] == [row["categories"] for row in rows[:30]]


def test_labels_are_the_rarest_pairs_of_neighbouring_words(arxiv, tmp_path):
    made = made_documents.write_with_pairs(
        tmp_path, arxiv, documents=20, labels=40, each=3, files=2
    )
    rows = [
        json.loads(line)
        for path in sorted(tmp_path.glob("documents-*.gz"))
        for line in gzip.open(path, "rt")
    ]
    assert len(rows) == 20 and all(1 <= len(row["labels"]) <= 3 for row in rows)
    for row in rows:
        words = row["text"].split()
        assert len(words) == made_documents.WORDS
        assert set(row["labels"]) <= {" ".join(pair) for pair in itertools.pairwise(words)}
    labels = {label for row in rows for label in row["labels"]}
    assert made.startswith(f"20 documents, {len(labels)} labels, ") and len(labels) <= 40
