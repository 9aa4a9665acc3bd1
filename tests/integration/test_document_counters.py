"""Beam's metrics of a job say what its manifest says."""

import json

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.config import config_from_dict
from beam_jobs.preprocessing.job import preprocess
from beam_jobs.runtime import document_counters, runners


def test_metrics_count_what_the_manifest_counts(tmp_path, monkeypatch):
    texts = [" ".join(f"word{i}x{j}" for j in range(9)) for i in range(90)]
    rows = [
        {"text": texts[i % 90], "labels": [f"l{i % 3}"] if i % 10 else []} for i in range(200)
    ]  # every tenth text has no label
    rows += [{"text": texts[0], "labels": ["l2"]}]  # a duplicate with other labels
    rows += [{"text": f"{text} once", "labels": ["l1"]} for text in texts[1:9]] + [
        {"text": "..."},
        {"labels": ["l1"]},
    ]
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"labels": []} | row) + "\n" for row in rows) + "{\n"
    )
    config = config_from_dict(
        {
            "name": "tiny",
            "data": {
                "source": "jsonl",
                "inputs": [str(tmp_path / "a.jsonl")],
                "max_reject_fraction": 0.5,
            },
            "labels": {"keep_unlabeled": False},
            "duplicates": {"near": "drop", "similarity": 0.5, "shingle_tokens": 1},
            "output": {"dataset_dir": str(tmp_path / "dataset")},
        },
        what="",
    )
    results = []
    run = runners.run
    monkeypatch.setattr(runners, "run", lambda *given: results.append(run(*given)) or results[-1])
    preprocess(
        config,
        beam_arguments=["--direct_running_mode=in_memory", "--direct_num_workers=1"],
        overwrite=False,
        force=False,
    )
    counts = manifests.load(tmp_path / "dataset").counts
    expected = counts.model_dump() | {"rejected": sum(counts.rejected.values())}
    del expected["written_without_labels"]  # those that are written have been counted
    assert document_counters.values(results[0]) == expected
    assert all(expected.values()), expected  # every counter has something to count here
