import dataclasses

import pytest

from beam_jobs.contract.config import config_from_dict
from trainer import auto
from trainer.auto import Sizes, choose, choose_for_encoder, resolve

SMALL = Sizes(documents=5_000, labels=40, tokens=20)
LARGE = Sizes(documents=160_000, labels=176, tokens=90)


def _config(tmp_path, **sections):
    train = {"run_dir": str(tmp_path / "run")} | sections.pop("train", {})
    raw = {"name": "tiny", "data": {"source": "jsonl", "inputs": ["a"]}, "train": train} | sections
    return config_from_dict(raw, what="")


@pytest.fixture
def sizes(monkeypatch):
    """Sizes of the dataset, which is not there; to be set by the test."""
    chosen = {"sizes": SMALL}
    monkeypatch.setattr(auto.Sizes, "of", lambda dataset: chosen["sizes"])
    return chosen


def test_a_config_without_a_model_gets_one_and_is_told_what_and_why(tmp_path, sizes):
    config, line = resolve(_config(tmp_path), None)
    assert config.model.name == "linear"
    assert line.startswith(
        "model: auto: linear, for 5,000 train documents, 40 labels and a median of 20 tokens"
    )


def test_a_config_that_names_its_model_stays_as_it_is(tmp_path, sizes):
    config = _config(tmp_path, model={"name": "mlp"})
    assert resolve(config, None) == (config, "")


def test_many_documents_get_pairs_of_words_and_fewer_epochs():
    small, large = choose(SMALL, in_steps=True).values, choose(LARGE).values
    assert small["model"]["name"] == large["model"]["name"] == "bow"
    pairs = {"bigram_buckets", "bigram_dim"}
    assert pairs <= large["model"].keys() and not pairs & small["model"].keys()
    assert large["train"]["epochs"] < small["train"]["epochs"]


def test_positives_of_rare_labels_weigh_more_where_macro_f1_is_the_objective():
    losses = [choose(LARGE, objective=name).values["loss"] for name in ("micro_f1", "macro_f1")]
    assert [loss.get("pos_weight") for loss in losses] == [None, "fourth_root"]


@pytest.mark.parametrize(
    ("labels", "documents", "name"),
    [
        (1_000, 160_000, "bow"),
        (1_001, 160_000, "bow_lwan"),
        (1_001, 160_001, "bow"),
        (19_999, 160_000, "bow_lwan"),
        (20_000, 160_000, "bow_tree"),
    ],
)
def test_many_labels_get_an_attention_and_very_many_a_label_tree(labels, documents, name):
    sizes = dataclasses.replace(LARGE, labels=labels, documents=documents)
    assert choose(sizes).values["model"]["name"] == name


def test_a_model_in_steps_of_few_documents_is_a_bag_whatever_the_labels():
    sizes = dataclasses.replace(SMALL, labels=5_000)
    assert choose(sizes, in_steps=True).values["model"]["name"] == "bow"


def test_an_encoder_is_trained_where_it_is_fast_enough_and_else_documents_are_encoded_once():
    few, many = (choose_for_encoder(sizes, on_gpu=False).values for sizes in (SMALL, LARGE))
    assert few["model"]["trainable_layers"] == 2 and many["model"]["trainable_layers"] == 0
    assert few["optimizer"]["learning_rate"] < few["optimizer"]["learning_rate_output"]
    on_gpu = choose_for_encoder(LARGE, on_gpu=True).values
    assert on_gpu["model"]["trainable_layers"] == "all"


def test_an_encoder_gets_as_many_epochs_as_a_last_layer_needs_or_is_not_trained_on_a_cpu():
    sizes = [
        Sizes(documents=number, labels=8, tokens=tokens)
        for number, tokens in ((12_000, 13), (5_000, 20), (1_170, 130))
    ]
    tuned, more, too_long = (choose_for_encoder(of, on_gpu=False).values for of in sizes)
    assert tuned["train"]["epochs"] == 3 and tuned["model"]["trainable_layers"] == 2
    assert more["train"]["epochs"] == 6 and more["model"]["trainable_layers"] == 2
    assert too_long["model"]["trainable_layers"] == 0
    on_gpu = choose_for_encoder(sizes[2], on_gpu=True).values
    assert on_gpu["train"]["epochs"] == 20 and on_gpu["model"]["trainable_layers"] == "all"


def test_a_tokenizer_of_an_encoder_leads_to_the_encoder_and_its_batches_are_kept(tmp_path, sizes):
    config, line = resolve(_config(tmp_path, text={"tokenizer": "minilm"}), None)
    assert config.model.name == "pretrained" and config.encoder_directory == "minilm"
    assert "model.trainable_layers 2" in line and "few enough to train the encoder" in line
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    sizes["sizes"] = LARGE
    assert resolve(_config(tmp_path, text={"tokenizer": "minilm"}), None)[0] == config


def test_keys_that_are_set_stay_as_set_and_the_others_are_chosen(tmp_path, sizes):
    config, line = resolve(
        _config(tmp_path, optimizer={"learning_rate": 0.5}, train={"epochs": 3}), None
    )
    assert (config.optimizer.learning_rate, config.train.epochs) == (0.5, 3)
    assert config.optimizer.schedule == "linear"
    assert "optimizer.learning_rate 0.5" in line and "train.epochs 3" in line


@pytest.mark.parametrize(
    "sections",
    [
        {"loss": {"label_smoothing": 0.1}},
        {"optimizer": {"name": "sgd"}},
        {"train": {"batch_size": 8}},
    ],
)
def test_keys_of_models_that_are_trained_in_steps_get_one(tmp_path, sizes, sections):
    config, line = resolve(_config(tmp_path, **sections), None)
    assert config.model.name == "bow"
    assert "because the config sets keys of models that are trained in steps" in line


def test_nothing_is_chosen_for_a_loss_or_an_optimizer_of_another_name(tmp_path, sizes):
    config, line = resolve(
        _config(tmp_path, loss={"name": "focal"}, optimizer={"name": "sgd"}), None
    )
    assert config.loss == _config(tmp_path, loss={"name": "focal"}).loss
    assert config.optimizer.schedule == "constant"


def test_a_run_that_has_begun_keeps_what_was_chosen_for_it(tmp_path, sizes):
    begun, _ = resolve(_config(tmp_path), None)
    assert begun.model.name == "linear"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(begun.to_yaml(), encoding="utf-8")
    sizes["sizes"] = LARGE
    resumed, line = resolve(_config(tmp_path), None)
    assert resumed == begun
    assert line == "model: auto: linear, as chosen when the run began"
    assert resolve(_config(tmp_path), None, fresh=True)[0].model.name == "bow"


@pytest.mark.parametrize("documents", [0, 1, 10_000, 10_000_000])
@pytest.mark.parametrize("labels", [1, 100_000])
def test_every_size_gets_a_valid_config(tmp_path, sizes, documents, labels):
    sizes["sizes"] = dataclasses.replace(SMALL, documents=documents, labels=labels)
    assert resolve(_config(tmp_path), None)[0].model.name != "auto"
