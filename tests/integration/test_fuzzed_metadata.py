"""Whatever a file of metadata or a request holds: it is taken, or refused in words."""

import json
import shutil

import pytest
from starlette.testclient import TestClient

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract import saved_model
from beam_jobs.contract.config import config_from_dict, load_config, load_saved_config
from beam_jobs.contract.errors import UserError
from beam_jobs.prediction import published
from tests.command_lines import ROOT
from tests.fuzzing import OUTSIDE, changed, damaged, fuzz, text_of
from trainer.evaluation.tuned import load_tuned
from trainer.runs import checkpoints
from trainer.runs.checkpoints import RunState
from trainer.runs.evaluation_record import read_evaluation
from trainer.runs.run import Run, run_of_model
from trainer.serving import rest_server


def refused_or_taken(read) -> bool:
    """Whether it is taken; any error but one for the user fails the test."""
    try:
        read()
    except UserError as error:
        assert 10 < len(str(error)) < 20_000 and "Traceback" not in str(error)
        return False
    return True


@pytest.fixture(scope="module")
def root(trained, tmp_path_factory):
    """A copy of the small experiment, whose files are replaced one at a time."""
    return shutil.copytree(trained.root, tmp_path_factory.mktemp("fuzzed") / "root")


def fuzz_file(path, read, *, cases: int = 40, refuses: bool = True) -> None:
    """Reads the file again and again with another content, and puts it back."""
    content = path.read_bytes()
    value = json.loads(content) if path.suffix == ".json" else None
    seen = {True: 0, False: 0}

    def check(rng):
        path.write_bytes(damaged(content, rng) if value is None else text_of(value, content, rng))
        seen[refused_or_taken(read)] += 1

    try:
        fuzz(check, cases=cases)
    finally:
        path.write_bytes(content)
    read()
    assert bool(seen[False]) == refuses


def test_any_manifest_is_a_dataset_or_refused(root):
    place = root / "out/small/dataset"

    def read():
        manifest = manifests.load(place)
        folder = place.resolve()
        assert all((place / i.file).resolve().is_relative_to(folder) for i in manifest.files())
        manifests.load_labels(manifest, place)
        manifests.load_vocabulary(manifest, place)

    fuzz_file(place / manifests.MANIFEST, read, cases=80)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_in_a_manifest_that_leaves_its_folder_is_refused(root, name):
    raw = json.loads((root / "out/small/dataset" / manifests.MANIFEST).read_text())
    for change in ("labels", "rejects"):
        with pytest.raises(UserError, match="within"):
            manifests.parse(raw | {change: raw[change] | {"file": name}}, what="manifest.json")
    raw["splits"]["train"]["shards"][0]["file"] = name
    with pytest.raises(UserError, match="within"):
        manifests.parse(raw, what="manifest.json")


@pytest.mark.parametrize("name", ["labels", "vocabulary", "statistics"])
def test_any_file_of_a_dataset_is_as_it_was_written_or_refused(root, name):
    place = root / "out/small/dataset"
    manifest = manifests.load(place)

    def read():
        manifests.check_files(manifest, place)
        manifests.load_labels(manifest, place)
        manifests.load_vocabulary(manifest, place)
        manifests.load_statistics(manifest, place)

    fuzz_file(place / getattr(manifest, name).file, read, cases=20)


@pytest.mark.parametrize(
    "name", ["evaluation-test.json", "history.json", "dataset_manifest.json", "config.yaml"]
)
def test_any_file_of_a_run_is_a_run_or_refused(root, name):
    path = root / "out/small/run" / name

    def read():
        run = Run(path.parent)
        read_evaluation(path.parent / "evaluation-test.json")
        assert run.history is not None

    fuzz_file(path, read)


@pytest.mark.parametrize("name", ["thresholds.json", "calibration.npz"])
def test_any_thresholds_and_calibration_belong_together_or_are_refused(root, name):
    folder = root / "out/small/run"
    labels = len(json.loads((folder / "thresholds.json").read_text())["per_label_bins"])
    fuzz_file(folder / name, lambda: load_tuned(folder, num_labels=labels))


def test_any_state_of_a_checkpoint_is_one_or_refused():
    state = json.loads(
        RunState(step=3, history=[{"step": 3, "loss": 0.5}], config="a: 1").to_json()
    )

    def check(rng):
        content = text_of(state, json.dumps(state).encode(), rng)
        refused_or_taken(lambda: RunState.from_json(content, what="checkpoint"))

    fuzz(check, cases=60)


def test_a_damaged_list_of_checkpoints_is_refused_and_nothing_is_deleted(root):
    folder = root / "out/small/run/best"
    names = sorted(path.name for path in folder.iterdir())

    def read():
        checkpoints._remove_leftovers(folder)
        checkpoints.saved_sizes(folder.parent)

    fuzz_file(folder / "checkpoint", read)
    assert sorted(path.name for path in folder.iterdir()) == names


def test_any_predictions_at_an_output_are_recognised_or_refused(tmp_path):
    info = {"file": "0123456789abcdef/part-0.jsonl", "bytes": 1, "sha256": "0" * 64, "examples": 1}
    summary = {"read": 1, "written": 1, "rejected": {}, "files": [info]}
    (tmp_path / published.SUMMARY).write_text(json.dumps(summary))

    def read():
        published.is_complete(str(tmp_path), "0123456789abcdef")
        published.live_generation(str(tmp_path))
        assert not any(".." in name for name in published.files_at_the_place(str(tmp_path)))

    fuzz_file(tmp_path / published.SUMMARY, read, refuses=False)


@pytest.mark.parametrize("name", ["origin.json", "config.yaml"])
def test_any_file_beside_a_model_is_read_or_refused(root, name, monkeypatch):
    monkeypatch.chdir(root)
    version = saved_model.newest_version("out/small/model")
    model = saved_model.SavedModel(version, None, ("text",), 5)

    def read():
        model.origin()["name"]
        run_of_model("out/small/model")
        load_saved_config(f"{version}/assets.extra/config.yaml", remedy="export again")

    fuzz_file(root / version / "assets.extra" / name, read)


def test_any_config_is_one_or_refused(tmp_path):
    configs = sorted((ROOT / "configs").glob("*.yaml"))
    path = tmp_path / "config.yaml"

    def check(rng):
        given = rng.choice(configs)
        path.write_bytes(damaged(given.read_bytes(), rng))
        refused_or_taken(lambda: load_config(path))
        raw = load_config(given).model_dump(mode="json")
        raw = changed(raw, rng)
        if isinstance(raw, dict):
            refused_or_taken(lambda: config_from_dict(raw, what="config"))

    fuzz(check, cases=25)


_REQUESTS = (
    {"instances": ["goal", {"b64": "Z29hbA=="}]},
    {"instances": [{"text": "goal"}], "signature_name": "decide"},
    {"inputs": {"text": ["goal", ""]}, "signature_name": "scores"},
    {"examples": [{"text": "goal"}], "context": {"n": 1}, "signature_name": "classify_examples"},
    {"inputs": ["goal"], "signature_name": "analyze"},
)


def test_any_request_is_answered_as_json(trained):
    model = saved_model.load(str(trained.root / "out/small/model"))
    client = TestClient(rest_server.make_app(model, "small"), raise_server_exceptions=True)
    seen = set()

    def check(rng):
        given = rng.choice(_REQUESTS)
        body = text_of(given, json.dumps(given).encode(), rng)
        verb = rng.choice((":predict", ":classify", ":predict", "", ":x", "/versions/1:predict"))
        answer = client.post(f"/v1/models/small{verb}", content=body)
        assert answer.status_code in (200, 400, 404)
        answer.json()
        seen.add(answer.status_code)

    fuzz(check, cases=80)
    assert {200, 400} <= seen
