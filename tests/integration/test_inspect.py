"""Inspecting a dataset: what the command shows, and that it finds every kind of damage."""

import json
import os
import shutil
from pathlib import Path

import pytest
import tensorflow as tf

from beam_jobs import inspect, preprocess
from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.errors import UserError
from tests.command_lines import fail_cleanly


@pytest.fixture(scope="module", params=["none", "gzip"])
def made(request, tmp_path_factory) -> Path:
    """A dataset. Read it only."""
    folder = tmp_path_factory.mktemp("inspect")
    rows = [
        {
            "id": f"d{i}",
            "text": f"word{i} and more " * (1 + i % 3),
            "labels": ["even", "odd"][i % 2 : i % 2 + 1 + i % 3],
        }
        for i in range(90)
    ]
    (folder / "in.jsonl").write_text(
        "\n".join(map(json.dumps, rows)) + "\n" + json.dumps(rows[0]) + "\n{"
    )
    (folder / "c.yaml").write_text(
        f"name: tiny\ndata: {{source: jsonl, inputs: ['{folder}/in.jsonl'], "
        "id_field: id, max_reject_fraction: 0.1}\n"
        f"output: {{dataset_dir: '{folder}/dataset', shards: 2, compression: {request.param}}}\n"
    )
    preprocess.main(["--config", str(folder / "c.yaml")])
    return folder / "dataset"


@pytest.fixture
def dataset(made, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(made, tmp_path / "dataset"))


def test_it_shows_counts_labels_quantiles_and_records_and_verifies_everything(made, capsys):
    manifest = manifests.load(made)
    inspect.main([str(made), "--records=1"])
    shown = capsys.readouterr().out
    train = manifest.splits["train"]
    assert (
        "documents: 92 read, 90 written (0 without labels), 1 duplicates, "
        "0 near-duplicates dropped, 1 rejected, 0 dropped" in shown
    )
    assert "\n  rejected 1 x not JSON\n" in shown
    assert f"\nfiles: {made / manifest.generation}\n" in shown
    assert f"train: {train.examples} documents in 2 shards" in shown
    assert "tokens per document, by quantile: 0% 3, 5% 3, " in shown
    labels = {row["name"]: row["positives"] for row in manifests.load_labels(manifest, made)}
    for name, positives in labels.items():
        assert (
            f"  {name}: {positives['train']} / {positives['validation']} / {positives['test']}\n"
            in shown
        )
    assert "label cardinality 1." in shown and "imbalance ratio mean" in shown
    assert (
        "labels most often together:\n  even + odd: 30\n" in shown
        or "labels most often together:\n  odd + even: 30\n" in shown
    )
    compression = "GZIP" if manifest.config["output"]["compression"] == "gzip" else ""
    first = next(
        iter(
            tf.data.TFRecordDataset(
                str(made / train.shards[0].file), compression
            ).as_numpy_iterator()
        )
    )
    example = tf.train.Example.FromString(first).features.feature
    assert f"train {example['id'].bytes_list.value[0].decode()}\n" in shown
    assert f"  text: {example['text'].bytes_list.value[0].decode()}\n" in shown
    assert shown.count("\n  text: ") == 3
    assert shown.endswith(f"verified: {len(manifest.files())} files, 0.0 MB, 90 records\n")


def test_statistics_agree_with_the_labels_file(made):
    manifest = manifests.load(made)
    statistics = manifests.load_statistics(manifest, made)
    labels = manifests.load_labels(manifest, made)
    for split, info in manifest.splits.items():
        positives = [row["positives"][split] for row in labels]
        assert statistics["splits"][split]["documents"] == info.examples
        assert statistics["splits"][split]["label_cardinality"] == pytest.approx(
            sum(positives) / info.examples, abs=1e-5
        )
        assert statistics["splits"][split]["imbalance_ratio"]["max"] == pytest.approx(
            max(positives) / min(positives), abs=1e-3
        )


def test_any_changed_byte_of_any_file_is_found_and_the_file_is_named(made, dataset):
    manifest = manifests.load(dataset)
    for info in manifest.files():
        if not info.bytes:
            continue
        for place in {0, 9, info.bytes // 2, info.bytes - 1} & set(range(info.bytes)):
            content = (made / info.file).read_bytes()
            (dataset / info.file).write_bytes(
                content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :]
            )
            with pytest.raises(
                UserError,
                match=f"{info.file}:? .*the dataset (is damaged|was changed after it was made)",
            ):
                inspect.main([str(dataset), "--records=0"])
        (dataset / info.file).write_bytes(content)
    inspect.main([str(dataset), "--records=0"])


def test_a_damaged_record_is_named_before_the_checksum_of_its_file(made, dataset):
    shard = manifests.load(dataset).splits["train"].shards[0]
    if shard.file.endswith(".gz"):
        pytest.skip("within gzip a changed byte has no record")
    content = bytearray((dataset / shard.file).read_bytes())
    second = 16 + int.from_bytes(content[:8], "little")
    content[second + 12] ^= 1
    (dataset / shard.file).write_bytes(content)
    with pytest.raises(
        UserError,
        match=f"{shard.file}: record 2, at byte {second:,}, has bytes of a wrong checksum",
    ):
        inspect.main([str(dataset), "--records=0"])
    inspect.main([str(dataset), "--records=0", "--no-verify"])


def test_a_shard_that_is_cut_off_is_named(dataset):
    shard = manifests.load(dataset).splits["train"].shards[0]
    os.truncate(dataset / shard.file, shard.bytes - 5)
    with pytest.raises(
        UserError, match=f"{shard.file} has {shard.bytes - 5} bytes, expected {shard.bytes}"
    ):
        inspect.main([str(dataset)])


def test_damage_ends_the_command_with_exit_status_2_and_one_message(dataset):
    shard = manifests.load(dataset).splits["test"].shards[0]
    content = (dataset / shard.file).read_bytes()
    (dataset / shard.file).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    message = fail_cleanly("beam_jobs.inspect", str(dataset), "--records=0", cwd=dataset)
    assert message.startswith(f"error: {dataset / shard.file}") and message.count("\n") == 1
