"""How many wrong labels `multihot-audit` finds: errors are planted in a dataset, and looked for.

    python scripts/plant_label_errors.py plant DATASET FOLDER
    multihot-preprocess --config FOLDER/config.yaml
    multihot-audit --config FOLDER/config.yaml --top 4000
    python scripts/plant_label_errors.py count FOLDER

In a fraction of the train and validation documents that have labels, one label is replaced by
another, drawn by the frequency of labels, or uniformly: each has a wrong label then, and lacks a
right one.
"""

import argparse
import csv
import json
import random
from pathlib import Path

import multihot

CONFIG = """\
name: planted
data: {{source: jsonl, inputs: [{folder}/documents.jsonl], id_field: id}}
splits: {{train: 0.9, validation: 0.1, test: 0}}
output: {{shards: 10, dataset_dir: {folder}/dataset}}
train: {{folds: 5, run_dir: {folder}/run}}
export: {{model_dir: {folder}/model}}
model: {{name: linear, features: words, C: 1.0}}
"""
SPLITS = ("train", "validation")


def documents(dataset: multihot.Dataset) -> list[dict]:
    """The text and the labels of every document that has a label."""
    names, rows = dataset.label_names, []
    for split in SPLITS:
        for texts, label_ids in dataset.tf_data(split, labels="ids"):
            for text, ids in zip(texts.numpy(), label_ids.to_list(), strict=True):
                if ids:
                    labels = [names[i] for i in ids]
                    rows.append({"id": f"d{len(rows)}", "text": text.decode(), "labels": labels})
    return rows


def plant(dataset: str, folder: Path, fraction: float, seed: int, uniform: bool) -> None:
    """Writes the documents with errors, a config for them, and what was planted."""
    rows, draw = documents(multihot.Dataset(dataset)), random.Random(seed)
    pool = [label for row in rows for label in row["labels"]]
    if uniform:
        pool = sorted(set(pool))
    planted = {}
    for row in draw.sample(rows, round(fraction * len(rows))):
        wrong = next(
            label for label in iter(lambda: draw.choice(pool), "") if label not in row["labels"]
        )
        right = draw.choice(row["labels"])
        row["labels"] = [label for label in row["labels"] if label != right] + [wrong]
        planted[row["id"]] = {"wrong": wrong, "missing": right}
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "documents.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "planted.json").write_text(json.dumps(planted), encoding="utf-8")
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder), encoding="utf-8")
    print(f"{len(planted):,} of {len(rows):,} documents have an error")


def count(folder: Path) -> None:
    """Prints how many of the planted errors are among the first n and 2n of each kind."""
    planted = json.loads((folder / "planted.json").read_text(encoding="utf-8"))
    with open(folder / "run-audit/audit.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for kind in ("wrong", "missing"):
        found = [row for row in rows if row["kind"] == kind]
        for first in (len(planted), 2 * len(planted)):
            ids = list(dict.fromkeys(row["id"] for row in found))[:first]
            pairs = {(row["id"], row["label"]) for row in found[:first]}
            hits = sum((name, labels[kind]) in pairs for name, labels in planted.items())
            share = sum(name in planted for name in ids) / len(planted)
            print(
                f"{kind}: first {first:,}: {hits / len(planted):.1%} of the labels, "
                f"{share:.1%} of the documents"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    planting = commands.add_parser("plant")
    planting.add_argument("dataset")
    planting.add_argument("folder", type=Path)
    planting.add_argument("--fraction", type=float, default=0.05)
    planting.add_argument("--seed", type=int, default=0)
    planting.add_argument("--uniform", action="store_true", help="draw every label as often")
    commands.add_parser("count").add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "plant":
        plant(
            arguments.dataset,
            arguments.folder,
            arguments.fraction,
            arguments.seed,
            arguments.uniform,
        )
    else:
        count(arguments.folder)


if __name__ == "__main__":
    main()
