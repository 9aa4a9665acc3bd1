import json
import math

import pytest

from beam_jobs.contract.errors import UserError
from tests.unit.trainer.evaluations import evaluation, label, method, per_label
from trainer.runs.evaluation_record import (
    FORMAT_VERSION,
    LABEL_THRESHOLDS,
    METHODS,
    NO_LABELS,
    ONE_THRESHOLD,
    ErrorExample,
    Errors,
    PerLabel,
    read_evaluation,
    write_evaluation,
)


def test_an_evaluation_is_read_back_as_it_was_written(tmp_path):
    written = evaluation(per_label=per_label([label("日本 <b>"), label("b", threshold=1 / 3)]))
    write_evaluation(tmp_path / "evaluation.json", written)
    assert read_evaluation(tmp_path / "evaluation.json") == written
    raw = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert raw["methods"][0]["key"] == "one_threshold" and raw["methods"][0]["kind"] == "model"
    assert raw["methods"][0]["ranking"]["precision_at"] == {"1": 0.9, "10": 0.4, "3": 0.6}
    assert raw["per_label"]["roc_auc"] == [None, None]


def test_nan_scores_of_a_diverged_model_are_kept(tmp_path):
    example = ErrorExample(label="a", score=math.nan, id="1", labels=(), text="")
    write_evaluation(tmp_path / "e.json", evaluation(errors=Errors(wrong=(example,), missed=())))
    assert math.isnan(read_evaluation(tmp_path / "e.json").errors.wrong[0].score)


def damaged(change):
    raw = json.loads(evaluation().model_dump_json())
    change(raw)
    return json.dumps(raw)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "Invalid JSON"),
        ('{"systems": [], "areas": {}}', "format_version: Field required"),
        (
            damaged(lambda raw: raw.update(format_version=FORMAT_VERSION + 1)),
            "format_version: Input should be less than or equal to",
        ),
        (damaged(lambda raw: raw.pop("sweep")), "sweep: Field required"),
        (damaged(lambda raw: raw["methods"][0].pop("key")), "methods.0.key: Field required"),
        (
            damaged(lambda raw: raw["per_label"]["f1"].pop()),
            "per_label: Value error, received columns of different lengths",
        ),
        (
            damaged(lambda raw: raw["per_label"].update(f1=["high", 0.5])),
            "per_label.f1.0: Input should be a valid number",
        ),
    ],
)
def test_a_file_that_is_old_or_damaged_is_one_error_that_names_it(tmp_path, text, what):
    path = tmp_path / "evaluation-test.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_evaluation(path)
    message = str(caught.value)
    assert message.startswith(f"{path} is not an evaluation of format version {FORMAT_VERSION}")
    assert what in message and "\n" not in message
    assert message.endswith("run `python -m trainer.task evaluate` again")


def test_a_file_that_is_not_there_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="cannot read .*evaluation-test.json: No such file"):
        read_evaluation(tmp_path / "evaluation-test.json")


def test_methods_are_found_by_key_and_captioned_by_kind():
    found = evaluation()
    assert found.method(NO_LABELS).caption == "baseline: no labels"
    assert found.method(ONE_THRESHOLD).caption == "model, one threshold"
    with pytest.raises(KeyError):
        found.method(LABEL_THRESHOLDS)
    assert found.ks == [1, 3, 10]
    assert {method(key).is_baseline for key, (kind, _) in METHODS.items() if kind == "model"} == {
        False
    }


def test_rows_of_labels_are_the_columns():
    rows = [label("a"), label("b", f1=0.25)]
    assert per_label(rows).rows() == rows and len(per_label(rows)) == 2
    assert rows[0]._fields == tuple(PerLabel.model_fields)
