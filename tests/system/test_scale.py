"""Much of everything: input that is larger than the memory it takes, and a million labels."""

import json
import os
import re
import subprocess
import sys

import pytest

from beam_jobs.contract import manifest as manifests
from tests.command_lines import ROOT, succeed

# A process of its own, which does all in memory: its peak after each job, in MB. Rows are collected
# until 64 MiB of them are spilled; with less the small job fills that as well as the large one.
PEAKS = """
import os, resource, sys
from beam_jobs.preprocess import main
from beam_jobs.runtime import spill
spill.SPILL_BYTES = 4 << 20
for home in sys.argv[1:]:
    os.chdir(home)
    main(["--config", "config.yaml", "--", "--direct_running_mode=in_memory"])
    print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
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


@pytest.mark.slow
def test_memory_grows_with_neither_documents_nor_rejects(tmp_path):
    homes = {rows: tmp_path / str(rows) for rows in (1_000, 7_000)}
    for rows, home in homes.items():
        home.mkdir()
        (home / "config.yaml").write_text(CONFIG)
        with open(home / "in.jsonl", "w") as stream:
            for i in range(rows):  # of 100 KB with a text, of 50 KB without
                words = f"number{i} and " * (50_000 // len(f"number{i} and "))
                text = f'"{words}"' if i % 2 else "null"
                stream.write(f'{{"text": {text}, "labels": ["x"], "more": "{words}"}}\n')
    ended = subprocess.run(
        [sys.executable, "-c", PEAKS, *map(str, homes.values())],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ended.returncode == 0, ended.stderr
    for rows, home in homes.items():
        counts = manifests.load(home / "out/many/dataset").counts
        assert counts.rejected == {"no text": rows // 2} and counts.written == rows // 2
        (home / "in.jsonl").unlink()
    small, large = map(int, re.findall(r"^PEAK (\d+)$", ended.stdout, re.MULTILINE))
    # 6,000 rows more: 150 MB of texts and as much of rejects, which would take several times that.
    assert large < small + 110, f"peaks of {small} and {large} MB:\n{ended.stdout}"


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
    (tmp_path / "config.yaml").write_text(CONFIG)
    succeed(
        "beam_jobs.preprocess",
        *("--config", "config.yaml", "--", "--direct_running_mode=in_memory"),
        cwd=tmp_path,
    )
    manifest = manifests.load(tmp_path / "out/many/dataset")
    assert (
        manifest.num_labels,
        manifest.label_counts.occurrences_kept,
        manifest.counts.written,
    ) == (1_000_000, 1_000_000, 10_000)
    labels = manifests.load_labels(manifest, tmp_path / "out/many/dataset")
    assert [label["name"] for label in labels] == sorted(f"label {i}" for i in range(1_000_000))
    assert all(sum(label["positives"].values()) == 1 for label in labels)
