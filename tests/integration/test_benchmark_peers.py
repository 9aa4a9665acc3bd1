"""The benchmark beside other classifiers: its figures, and what it says where it cannot measure."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import f1_score, ndcg_score

from beam_jobs.contract.errors import UserError
from tests.command_lines import Ended, run_module
from tests.corpus import files_of
from tests.scripts import load_script
from trainer.metrics.thresholds import Thresholds

SYSTEMS = ("svc", "keras", "ours")


@pytest.fixture(scope="module")
def benchmark():
    """The script as a module, and the packages beside it."""
    return load_script("benchmark_peers")


def dataset_of(trained) -> str:
    return str(trained.root / "out/small/dataset")


@pytest.fixture(scope="module")
def measured(benchmark, trained, tmp_path_factory):
    """The output directory of a run on validation, with the systems' scores.

    The first system runs in a process of its own, as all of them do; the others in this one.
    """
    output = tmp_path_factory.mktemp("peers")
    from peers import ours, worker

    def run_worker(command, **options):
        job = Path(command[-1])
        if job.parent.name == f"{SYSTEMS[0]}-0":
            return subprocess.run(command, **options)
        result = worker.run(json.loads(job.read_text()))
        job.with_name("result.json").write_text(json.dumps(result))
        return Ended(0, "", "")

    def run_command(command, **_):
        return run_module(*command[2:], cwd=output)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "subprocess", SimpleNamespace(run=run_worker))
        patch.setattr(ours, "subprocess", SimpleNamespace(run=run_command))
        benchmark.main(
            [
                *(dataset_of(trained), "--output", str(output), "--keep"),
                *("--systems", ",".join(SYSTEMS)),
            ]
        )
    return output


def results_of(output) -> dict:
    return json.loads((output / "peers.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_metrics_equal_those_of_scikit_learn(benchmark, trained, measured, name):
    run = results_of(measured)["systems"][name]["runs"][0]
    labels = _labels(trained, "validation")
    ids, values = benchmark.exchange.read_scores(
        measured / f"{name}-0", "validation", num_labels=labels.shape[1]
    )
    scores = np.zeros(labels.shape, np.float32)
    np.put_along_axis(scores, ids.astype(np.int64), np.asarray(values), axis=1)
    thresholds = Thresholds.from_json(run["thresholds"], num_labels=labels.shape[1])
    occurring = labels.any(axis=0)
    for rule, at in {
        "one_threshold": thresholds.global_threshold,
        "label_thresholds": np.array(thresholds.per_label_thresholds),
    }.items():
        decisions = scores >= at
        assert run[rule]["micro_f1"] == pytest.approx(f1_score(labels, decisions, average="micro"))
        each = f1_score(labels, decisions, average=None, zero_division=0)
        assert run[rule]["macro_f1"] == pytest.approx(each[occurring].mean())
        low, high = run[rule]["intervals"]["micro_f1"]
        assert low <= run[rule]["micro_f1"] <= high
    best = np.argsort(-scores, axis=1, kind="stable")[:, :3]
    hits = np.take_along_axis(labels, best, axis=1)
    assert run["precision_at"]["1"] == pytest.approx(hits[:, 0].mean())
    assert run["precision_at"]["3"] == pytest.approx(hits.mean())
    # scikit-learn takes only as many ranks as there are labels, which is what "at 5" means here.
    assert run["ndcg_at"]["5"] == pytest.approx(
        ndcg_score(labels, scores, k=5, ignore_ties=True), abs=1e-3
    )
    assert run["one_threshold"]["micro_f1"] > 0.9  # the labels follow from the words


@pytest.mark.slow
def test_our_thresholds_are_those_of_the_evaluate_command(measured):
    tuned = json.loads((measured / "ours-0/run/thresholds.json").read_text())
    ours = results_of(measured)["systems"]["ours"]["runs"][0]["thresholds"]
    assert ours["global_bin"] == tuned["global_bin"]
    assert ours["per_label_bins"] == tuned["per_label_bins"]


@pytest.mark.slow
def test_table_and_costs_tell_of_every_system(measured):
    results, table = results_of(measured), (measured / "peers.md").read_text()
    assert (measured / "peers.png").stat().st_size > 10_000
    for system in results["systems"].values():
        run = system["runs"][0]
        assert f"| {system['title']} | {run['one_threshold']['micro_f1']:.3f} ± " in table
        assert run["peak_bytes"] > 30e6 and run["model_bytes"] > 1000
        assert run["ms_per_document"] > 0
        assert run["seconds"]["train"] > 0 and run["seconds"]["start"] > 0


def test_a_peer_that_cannot_be_installed_is_named_in_the_table(benchmark, trained, tmp_path):
    benchmark.main(
        [
            *(dataset_of(trained), "--output", str(tmp_path), "--systems", "pecos"),
            *("--peers-env", str(tmp_path / "env"), "--peers-python", "/no/such/python"),
        ]
    )
    reason = "cannot be installed: cannot run /no/such/python: [Errno 2]"
    assert results_of(tmp_path)["systems"]["pecos"]["skipped"].startswith(reason)
    assert reason in (tmp_path / "peers.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--systems", "svm"], "--systems: received 'svm', expected some of svc, svc2"),
        (["--config", "none.yaml"], "cannot read the config none.yaml"),
    ],
)
def test_wrong_arguments_are_named(benchmark, trained, tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        benchmark.main([dataset_of(trained), "--output", str(tmp_path), *arguments])


def test_a_config_of_another_dataset_is_refused(benchmark, trained, tmp_path):
    config = (trained.root / trained.config).read_text()
    (tmp_path / "other.yaml").write_text(config + "labels: {min_count: 7}\n")
    arguments = [dataset_of(trained), "--output", str(tmp_path / "output")]
    with pytest.raises(UserError, match="labels.min_count: dataset 1, config 7"):
        benchmark.main([*arguments, "--config", str(tmp_path / "other.yaml")])


def test_a_missing_dataset_is_named(benchmark, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        benchmark.main([str(tmp_path / "none"), "--output", str(tmp_path)])


def _labels(trained, split: str) -> np.ndarray:
    """bool [documents, labels] of a split, read by TensorFlow from the shards."""
    import tensorflow as tf

    directory = files_of(trained.root / "out/small/dataset")
    names = json.loads((directory / "labels.json").read_text())
    rows = []
    for record in tf.data.TFRecordDataset(sorted(map(str, directory.glob(f"*-{split}.tfrecord*")))):
        example = tf.train.Example.FromString(record.numpy())
        row = np.zeros(len(names), bool)
        row[list(example.features.feature["labels"].int64_list.value)] = True
        rows.append(row)
    return np.array(rows)
