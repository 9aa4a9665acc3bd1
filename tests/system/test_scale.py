"""Much of everything: input that is larger than the memory it takes, and a million labels."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from beam_jobs.contract import manifest as manifests
from tests.command_lines import ROOT

# A process of its own, whose children's peak is then the command's alone.
PEAK = """
import resource, subprocess, sys
command = [sys.executable, "-m", "beam_jobs.preprocess", *sys.argv[1:]]
status = subprocess.call(command, stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""
CONFIG = """
name: many
data: {source: jsonl, inputs: [in.jsonl], max_reject_fraction: 1}
text:
  max_tokens_per_document: 20
  strip_html: false
  strip_urls: false
  normalize: none
  expand_contractions: false
  keep_characters: null
vocabulary: {size: 1000}
output: {shards: 2}
"""


def preprocess(home: Path, *arguments: str) -> float:
    """The peak resident memory of the job's process, which does all in memory, in MB."""
    (home / "config.yaml").write_text(CONFIG)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-c",
        PEAK,
        "--config",
        "config.yaml",
        *arguments,
        "--",
        "--direct_running_mode=in_memory",
    ]
    ended = subprocess.run(
        command, cwd=home, env=environment, capture_output=True, text=True, timeout=600
    )
    assert ended.returncode == 0, ended.stderr
    return int(ended.stdout) / 1024


@pytest.mark.slow
def test_memory_grows_with_neither_documents_nor_rejects(tmp_path):
    peaks = {}
    for megabytes in (80, 320):
        (home := tmp_path / str(megabytes)).mkdir()
        with open(home / "in.jsonl", "w") as stream:
            for i in range(megabytes * 20):  # rows of 50 KB
                words = f"number{i} and " * (50_000 // len(f"number{i} and "))
                stream.write(
                    json.dumps(
                        {
                            "text": words if i % 2 else None,
                            "labels": ["x"],
                            "more": words,
                        }
                    )
                    + "\n"
                )
        peaks[megabytes] = preprocess(home)
        counts = manifests.load(home / "out/many/dataset").counts
        assert counts.rejected == {"no text": megabytes * 10} and counts.written == megabytes * 10
        (home / "in.jsonl").unlink()
    assert peaks[320] < peaks[80] + 120, peaks  # the input has grown by 360 MB


@pytest.mark.slow
def test_a_million_distinct_labels_are_a_dataset(tmp_path):
    with open(tmp_path / "in.jsonl", "w") as stream:
        for i in range(10_000):
            stream.write(
                json.dumps(
                    {
                        "text": f"document {i}",
                        "labels": [f"label {i * 100 + j}" for j in range(100)],
                    }
                )
                + "\n"
            )
    preprocess(tmp_path)
    manifest = manifests.load(tmp_path / "out/many/dataset")
    assert (
        manifest.num_labels,
        manifest.label_counts.occurrences_kept,
        manifest.counts.written,
    ) == (1_000_000, 1_000_000, 10_000)
    labels = manifests.load_labels(manifest, tmp_path / "out/many/dataset")
    assert [label["name"] for label in labels] == sorted(f"label {i}" for i in range(1_000_000))
    assert all(sum(label["positives"].values()) == 1 for label in labels)
