"""Exports: what a SavedModel answers, what belongs beside it, and how it is published."""

import contextlib
import dataclasses
import gc
import gzip
import hashlib
import io
import itertools
import json
import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from ruamel.yaml import YAML
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from beam_jobs.contract import saved_model
from beam_jobs.contract.config import load_config
from beam_jobs.contract.errors import UserError
from tests.command_lines import succeed
from trainer.data.dataset import open_dataset
from trainer.data.input_pipeline import token_ids
from trainer.evaluation.tuned import load_tuned
from trainer.experiment import assemble, restore_best
from trainer.runs.evaluation_record import read_evaluation
from trainer.serving import ensemble, export, half_precision, model_version

ARXIV = Path(__file__).parents[3] / "shared/data/arxiv/arxiv-00-of-08.jsonl.gz"
TEXTS = [
    "Rocket in orbit around the moon",
    "soup and bread",
    "",
    "<b>guitar</b> &amp; GOAL",
    "\x00 \udcff".encode("utf-8", "surrogatepass"),
]


@pytest.fixture(scope="session")
def model(trained):
    return saved_model.load(str(trained.root / "out/small/model"))


def answers(model, name, texts=TEXTS):
    return {
        key: value.numpy()
        for key, value in model.module.signatures[name](text=tf.constant(texts)).items()
    }


def copied(trained, place):
    """The experiment without its exports, to export from again."""
    shutil.copytree(trained.root, place, ignore=shutil.ignore_patterns("model"))
    return place


@contextlib.contextmanager
def in_directory(place):  # contextlib.chdir is not in Python 3.10
    here = os.getcwd()
    os.chdir(place)
    try:
        yield
    finally:
        os.chdir(here)


@pytest.mark.parametrize("count", [0, 1, 2, 15, 16, 17, 300])
def test_every_output_of_every_signature_has_a_row_a_document(model, count):
    texts = tf.constant([TEXTS[i % len(TEXTS)] for i in range(count)], tf.string, shape=[count])
    assert set(model.module.signatures) == set(saved_model.SIGNATURES)
    for name in set(saved_model.SIGNATURES) - {"classify_examples"}:
        outputs = model.module.signatures[name](text=texts)
        assert {len(value) for value in outputs.values()} == {count}, name
    examples = tf.constant([example(text) for text in texts.numpy()], tf.string, shape=[count])
    assert {
        len(value)
        for value in model.module.signatures["classify_examples"](inputs=examples).values()
    } == {count}


def test_a_document_is_answered_alike_alone_and_in_any_batch(model):
    texts = [TEXTS[i % len(TEXTS)] for i in range(40)]
    together = answers(model, "scores", texts)["scores"]
    for i in (0, 7, 39):
        np.testing.assert_allclose(
            answers(model, "scores", [texts[i]])["scores"][0], together[i], atol=1e-6
        )


def example(text):
    text = text if isinstance(text, bytes) else text.encode()
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))
    return tf.train.Example(
        features=tf.train.Features(feature={"text": feature})
    ).SerializeToString()


def test_classification_gives_what_serving_default_gives_and_is_marked_for_tensorflow_serving(
    model,
):
    classified = model.module.signatures["classify_examples"](
        inputs=tf.constant([example(text) for text in TEXTS])
    )
    expected = answers(model, "serving_default")
    np.testing.assert_array_equal(classified["classes"], expected["labels"])
    np.testing.assert_array_equal(classified["scores"], expected["scores"])
    graphs = saved_model_pb2.SavedModel.FromString(
        Path(model.path, "saved_model.pb").read_bytes()
    ).meta_graphs
    definition = graphs[0].signature_def["classify_examples"]
    assert definition.method_name == tf.saved_model.CLASSIFY_METHOD_NAME
    assert set(definition.inputs) == {tf.saved_model.CLASSIFY_INPUTS}
    assert set(definition.outputs) == {
        tf.saved_model.CLASSIFY_OUTPUT_CLASSES,
        tf.saved_model.CLASSIFY_OUTPUT_SCORES,
    }
    with pytest.raises(tf.errors.InvalidArgumentError, match="text.*required"):
        model.module.signatures["classify_examples"](
            inputs=tf.constant([tf.train.Example().SerializeToString()])
        )


def test_warm_up_requests_are_logs_that_tensorflow_serving_reads_and_the_model_answers(model):
    path = f"{model.path}/assets.extra/tf_serving_warmup_requests"
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record)
        for record in tf.data.TFRecordDataset(path).as_numpy_iterator()
    ]
    called = set()
    for log in logs:
        if log.WhichOneof("log_type") == "classify_log":
            request = log.classify_log.request
            inputs = {
                "inputs": tf.constant(
                    [e.SerializeToString() for e in request.input.example_list.examples]
                )
            }
        else:
            request = log.predict_log.request
            inputs = {
                name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()
            }
        outputs = model.module.signatures[request.model_spec.signature_name](**inputs)
        assert {len(value) for value in outputs.values()} == {len(next(iter(inputs.values())))}
        called.add(request.model_spec.signature_name)
    assert called == set(saved_model.SIGNATURES) - {"analyze"}


def test_a_model_leads_back_to_its_data(trained, model):
    origin = model.origin()
    manifest = (trained.root / "out/small/dataset/manifest.json").read_bytes()
    assert origin["dataset_manifest_sha256"] == hashlib.sha256(manifest).hexdigest()
    assert (
        origin["saved_model_fingerprint"]
        == tf.saved_model.experimental.read_fingerprint(model.path).singleprint()
    )
    (copy := trained.root / "again").mkdir()
    shutil.copytree(model.path, copy / "1")
    model_version.write_fingerprint(str(copy / "1"))  # of the files as they are
    again, written = (
        tf.saved_model.experimental.read_fingerprint(path) for path in (str(copy / "1"), model.path)
    )
    assert (again.saved_model_checksum, again.singleprint()) == (
        written.saved_model_checksum,
        written.singleprint(),
    )
    shutil.rmtree(copy)
    assert load_config(f"{model.path}/assets.extra/config.yaml") == load_config(
        trained.root / trained.config
    )


def test_the_model_card_tells_of_data_metrics_thresholds_and_limits(trained, model):
    card = Path(model.path, "README.md").read_text()
    manifest = json.loads((trained.root / "out/small/dataset/manifest.json").read_text())
    assert f"| train | {manifest['splits']['train']['examples']:,} |" in card
    assert (trained.root / "out/small/run/evaluation-test.txt").read_text().strip() in card
    thresholds = json.loads((trained.root / "out/small/run/thresholds.json").read_text())
    assert f"{thresholds['global_bin'] / 1024:.3f}" in card
    assert "1 of 5 labels have fewer than 50 documents in the train split" in card
    assert [line for line in card.splitlines() if line.startswith("## ")] == [
        "## Model",
        "## Data",
        "## Metrics",
        "## Thresholds",
        "## Limits",
    ]
    _, front_matter, _ = card.split("---\n", 2)
    head = YAML(typ="safe", pure=True).load(front_matter)
    assert head["pipeline_tag"] == "text-classification"
    (results,) = head["model-index"][0]["results"]
    evaluation = read_evaluation(trained.root / "out/small/run/evaluation-test.json")
    f1 = evaluation.method("label_thresholds").metrics
    assert results["dataset"] == {"type": "small", "name": "small", "split": "test"}
    assert [metric["value"] for metric in results["metrics"]] == [
        round(f1.micro_f1, 4),
        round(f1.macro_f1_present, 4),
    ]


def test_export_prints_size_and_speed(trained):
    printed = trained.output["export"]
    for word in ("MB, loads in", "a second in batches of 256", "p50", "p95", "p99"):
        assert word in printed


@pytest.fixture(scope="session")
def halved(trained, tmp_path_factory):
    """By type: (what `export` printed, the model)."""
    place = copied(trained, tmp_path_factory.mktemp("halved") / "root")
    found = {}
    for dtype in ("float16", "bfloat16"):
        printed, model_dir = io.StringIO(), f"out/small/{dtype}"
        with in_directory(place), contextlib.redirect_stdout(printed):
            export.export(
                load_config(
                    trained.config,
                    overrides=[f"export.weights={dtype}", f"export.model_dir={model_dir}"],
                )
            )
        found[dtype] = printed.getvalue(), saved_model.load(str(place / model_dir))
    return found


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halved_weights_halve_the_matrices_and_cost_what_is_printed(model, halved, dtype):
    printed, half_model = halved[dtype]
    whole, half = answers(model, "scores")["scores"], answers(half_model, "scores")["scores"]
    assert 0 < np.abs(whole - half).max() < 0.01
    reader = tf.train.load_checkpoint(f"{half_model.path}/variables/variables")
    matrices = {
        name for name, shape in reader.get_variable_to_shape_map().items() if len(shape) > 1
    }
    assert len(matrices) == 2 and {
        reader.get_variable_to_dtype_map()[name].name for name in matrices
    } == {dtype}
    bytes_of = {
        m.path: sum(file.stat().st_size for file in Path(m.path, "variables").iterdir())
        for m in (model, half_model)
    }
    assert (
        bytes_of[half_model.path] < 0.65 * bytes_of[model.path]
    )  # vectors, such as IDF, stay float32
    assert printed.count("on the validation split: micro-F1") == 2
    # The graph as TensorFlow Serving loads it: widened by the initializer, no Python beside.
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        signature = tf.compat.v1.saved_model.load(
            session, ["serve"], half_model.path
        ).signature_def["scores"]
        served = session.run(
            signature.outputs["scores"].name, {signature.inputs["text"].name: TEXTS[:2]}
        )
    np.testing.assert_allclose(served, half[:2], atol=1e-6)


def test_models_of_halved_weights_do_not_disturb_each_other(halved):
    _, first = halved["float16"]
    expected = answers(first, "scores")["scores"]
    second = saved_model.load(first.path)
    np.testing.assert_array_equal(answers(second, "scores")["scores"], expected)
    del second
    gc.collect()
    np.testing.assert_array_equal(answers(first, "scores")["scores"], expected)


def test_weights_too_large_for_float16_are_told():
    model = keras.Sequential(
        [keras.layers.Dense(2, kernel_initializer=keras.initializers.Constant(1e6))]
    )
    model.build((None, 3))
    with pytest.raises(
        UserError, match="export.weights: received float16.*expected bfloat16 or float32"
    ):
        half_precision.check_range(model, "float16")
    half_precision.check_range(model, "bfloat16")


def test_an_ensemble_scores_the_weighted_mean_of_its_members(trained, model, halved, tmp_path):
    place = copied(trained, tmp_path / "ensemble")
    other = halved["bfloat16"][1]
    printed = succeed(
        "trainer.task",
        "export",
        "--config",
        "small.yaml",
        "--average",
        model.path,
        other.path,
        "--weights",
        "1",
        "3",
        cwd=place,
    )
    assert "exported the mean of 2 models as out/small/model/1" in printed
    shutil.rmtree(place / "out/small/dataset")
    ensemble = saved_model.load(str(place / "out/small/model"))
    a, b, mean = (answers(m, "scores")["scores"] for m in (model, other, ensemble))
    assert np.abs(a - b).max() > 1e-4
    np.testing.assert_allclose(mean, 0.25 * a + 0.75 * b, atol=1e-6)
    assert [member["share"] for member in ensemble.origin()["members"]] == [0.25, 0.75]
    assert {len(value) for value in answers(ensemble, "decide").values()} == {len(TEXTS)}


@pytest.mark.parametrize(
    ("weights", "override", "message"),
    [
        ([1.0], "export.top_k=5", r"--weights: received \[1.0\] for 2 models"),
        ([-1.0, 2.0], "export.top_k=5", r"--weights: received \[-1.0, 2.0\]"),
        ([0.0, 0.0], "export.top_k=5", "not all 0"),
        (None, "export.weights=float16", "expected float32: each member keeps"),
        (None, "export.top_k=5", "changed and the dataset .* differ in analyzer"),
    ],
)
def test_models_and_weights_that_do_not_fit_together_are_told(
    trained, model, tmp_path, monkeypatch, weights, override, message
):
    shutil.copytree(model.path, tmp_path / "changed")
    origin = tmp_path / "changed/assets.extra/origin.json"
    values = json.loads(origin.read_text())
    values["analyzer"]["normalize"] = "lower"
    origin.write_text(json.dumps(values))
    monkeypatch.chdir(trained.root)
    with pytest.raises(UserError, match=message):
        ensemble.export_average(
            load_config(trained.config, overrides=[override]),
            [model.path, str(tmp_path / "changed")],
            weights,
        )


def test_models_of_other_labels_do_not_average(trained, model, monkeypatch):
    monkeypatch.chdir(trained.root)
    dataset = open_dataset(load_config(trained.config))
    fewer = dataclasses.replace(dataset)
    fewer.__dict__["labels"] = [label for label in dataset.labels if label["name"] != "rare"]
    with pytest.raises(UserError, match="has 5 labels.*not in both: rare"):
        ensemble._check_member(model, fewer)


def test_an_export_that_fails_publishes_nothing_and_leaves_nothing(trained, tmp_path, monkeypatch):
    place = copied(trained, tmp_path / "fails")
    monkeypatch.chdir(place)

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_version.warmup, "write_requests", full_disk)
    with pytest.raises(UserError, match="cannot write in out/small/model: No space left"):
        export.export(load_config(trained.config))
    assert list((place / "out/small/model").iterdir()) == []
    (place / "out/small/model/.staging/variables").mkdir(
        parents=True
    )  # of an export that was killed
    (place / "out/small/model/7").mkdir()
    monkeypatch.undo()
    monkeypatch.chdir(place)
    export.export(load_config(trained.config))
    assert sorted(path.name for path in (place / "out/small/model").iterdir()) == ["7", "8"]


@pytest.mark.skipif(not ARXIV.exists(), reason="the real documents are not here")
def test_thousands_of_real_documents_get_the_scores_of_the_trainer(tmp_path, monkeypatch):
    """The largest difference of a score was 0 over 10,420 papers, of which these are a part.

    Where a batch is divided among threads in another way, last bits may differ.
    """
    config = """\
name: papers
data:
  {source: jsonl, inputs: [papers.jsonl], id_field: id, text_fields: [title, abstract],
   labels_field: categories}
splits: {train: 0.3, validation: 0.1, test: 0.6}
model: {bigram_buckets: 16384, embedding_dim: 64}
train: {epochs: 1}
evaluate: {calibration: platt}
"""
    (tmp_path / "papers.yaml").write_text(config)
    with gzip.open(ARXIV) as papers:
        (tmp_path / "papers.jsonl").write_bytes(b"".join(itertools.islice(papers, 3000)))
    succeed("beam_jobs.preprocess", "--config", "papers.yaml", cwd=tmp_path)
    for command in ("train", "evaluate", "export"):
        succeed("trainer.task", command, "--config", "papers.yaml", cwd=tmp_path)
    monkeypatch.chdir(tmp_path)
    experiment = assemble(load_config("papers.yaml"))
    restore_best(experiment)
    spec = experiment.dataset.record_spec
    rows = spec.parse_batch(
        tf.constant(
            list(tf.data.TFRecordDataset(experiment.dataset.shards("test")).as_numpy_iterator())
        )
    )
    analyzed = {
        key: text
        for key, text in zip(
            rows["id"].numpy().tolist(), rows["text"].numpy().tolist(), strict=True
        )
    }
    model = saved_model.load("out/papers/model")
    calibration = load_tuned(
        experiment.run_dir, num_labels=experiment.dataset.num_labels
    ).calibration
    assert calibration.method == "platt"

    @tf.function
    def score_analyzed(text):
        logits = experiment.model(token_ids(experiment.vectorizer, [text]), training=False)
        return tf.sigmoid(calibration.log_odds(experiment.log_odds(logits)))

    largest, documents = 0.0, 0
    for lines in tf.data.TextLineDataset("papers.jsonl").batch(500).as_numpy_iterator():
        papers = [paper for paper in map(json.loads, lines) if paper["id"].encode() in analyzed]
        raw = tf.constant([f"{paper['title']}\n\n{paper['abstract']}" for paper in papers])
        served = model.module.signatures["scores"](text=raw)["scores"]
        trained_scores = score_analyzed(
            tf.constant([analyzed[paper["id"].encode()] for paper in papers])
        )
        largest = max(largest, float(tf.reduce_max(tf.abs(served - trained_scores))))
        documents += len(papers)
    assert documents >= 1500
    assert largest < 5e-6, largest
    print(f"largest difference of a score over {documents:,} documents: {largest:.1e}")
