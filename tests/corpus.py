"""A corpus with everything that a preprocessing job must get right, and the homes of jobs on it."""

import gzip
import json
import random
from pathlib import Path

from beam_jobs.contract import manifest as manifests

CONFIG = """
name: tiny
data: {source: jsonl, inputs: ['corpus/*'], id_field: id, weight_field: weight}
labels: {min_count: 50, top_k: 11, keep_unlabeled: false}
vocabulary: {size: 150, min_document_count: 3}
splits: {train: 0.7, validation: 0.2, test: 0.1}
output: {shards: 3}
"""
DATASET = "out/tiny/dataset"


def corpus_lines() -> list[str]:
    """2,000 rows: duplicates in other spellings, Unicode, no tokens, no kept labels, rejects."""
    rng = random.Random(7)
    words = [f"word{i}" for i in range(180)]
    words += [
        "café",
        "CAFÉ",
        "straße",
        "日本",
        "ﬁne",
        "don't",
        "<b>bold</b>",
        "http://x.org/y",
        "\x00",
        "\ud800",
        "  ",
    ]
    weights = [1 / (1 + i) for i in range(len(words))]
    labels = [f"label {i}" for i in range(15)] + ["étiquette", "标签"]
    rows = []
    for i in range(1985):
        if i % 8 == 7:
            text = rng.choice(rows)["text"]
            text = rng.choice([text, text.upper(), f" {text}\n"])
        else:
            text = " ".join(rng.choices(words, weights, k=rng.randint(1, 40)))
        if i in (100, 900, 1500):
            text = rng.choice(["...", "<p></p>", ""])
        kept = [label for j, label in enumerate(labels) if rng.random() < 0.4 / (1 + j)]
        rows.append(
            {
                "id": f"d{rng.getrandbits(40):x}",
                "text": text,
                "labels": kept,
                "weight": rng.choice([1, 1, 0.5]),
            }
        )
    lines = [
        json.dumps(row, ensure_ascii=i % 2 == 0 or "\ud800" in row["text"])
        for i, row in enumerate(rows)
    ]
    lines += [
        "{",
        '["no object"]',
        '{"id": "x", "text": 1, "labels": [], "weight": 1}',
        '{"id": "x", "text": "a", "labels": ["a\\nb"], "weight": 1}',
    ]
    return lines


def make_home(folder: Path, files: dict[str, list[str]], config: str = CONFIG) -> Path:
    """A working directory with a config and its corpus."""
    (folder / "corpus").mkdir(parents=True)
    for name, lines in files.items():
        content = "".join(line + "\n" for line in lines).encode()
        (folder / "corpus" / name).write_bytes(
            gzip.compress(content) if name.endswith(".gz") else content
        )
    (folder / "config.yaml").write_text(config)
    return folder


def files_of(dataset: Path) -> Path:
    """The folder of a dataset's files."""
    return Path(dataset) / manifests.read(dataset).generation


def without_folder(dataset: Path) -> manifests.Manifest:
    """A dataset's manifest as if its files lay beside it, to compare those of two generations."""
    folder = files_of(dataset).name
    content = (Path(dataset) / manifests.MANIFEST).read_text(encoding="utf-8")
    return manifests.parse(json.loads(content.replace(f"{folder}/", "")), what=str(dataset))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
