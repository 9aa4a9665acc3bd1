"""A dataset on an object store: the same bytes, whole or not at all, whoever writes beside."""

import contextlib
import json
import re
import shutil
import threading
import time

import pyarrow as pa
import pytest

import multihot
from beam_jobs import inspect, predict, preprocess
from beam_jobs.contract import encoder_tokenizer, places, saved_model, store_lock
from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.records import RecordSpec
from beam_jobs.preprocessing import writer
from beam_jobs.preprocessing.buckets import ENCODED, Bucket, write_table
from beam_jobs.preprocessing.writer import CheckShard, ShardPlan, WriteShard
from beam_jobs.runtime import generations
from tests.corpus import DATASET, contents, files_of, make_home
from tests.object_stores import (
    make_bucket,
    s3_environment,
    s3_server,
)
from tests.runs import assert_same_bits
from tests.tiny_encoder import write_tokenizer
from trainer import task
from trainer.data import dataset_cache
from trainer.models.pretrained_vectors import load_vectors
from trainer.runs import remote_directory
from trainer.serving import model_version


@pytest.fixture(scope="session")
def server():
    with s3_server() as address:
        yield address


@pytest.fixture
def s3(server):
    """A new bucket, which the environment leads to."""
    with s3_environment(server, with_endpoint=True):
        yield make_bucket(server)


@pytest.fixture(params=["s3", "gcs", "disk"])
def place(request, tmp_path):
    """A place of each kind."""
    return str(tmp_path) if request.param == "disk" else request.getfixturevalue(request.param)


CONFIG = """
name: tiny
data: {source: jsonl, inputs: ['corpus/*'], id_field: id}
vocabulary: {min_document_count: 1}
output: {shards: 2}
"""


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A home in which the job has run, on the disk. Read it only."""
    lines = [json.dumps({"id": f"{i}", "text": f"a b{i}", "labels": ["x"]}) for i in range(60)]
    home = make_home(tmp_path_factory.mktemp("base") / "home", {"all.jsonl": lines}, CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        preprocess.main(["--config", "config.yaml"])
    return home


def run(*arguments: str) -> None:
    preprocess.main(["--config", "config.yaml", *arguments])


def stored(place: str) -> dict[str, bytes]:
    return {name: places.read_bytes(f"{place}/{name}") for name in places.list_files(place)}


# --- files -------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"content", b"x" * (9 << 20)], ids=len)
def test_a_file_of_any_size_is_put_read_listed_and_deleted(place, content):
    path = f"{place}/folder/some file"
    places.write(path, content)
    assert places.read_bytes(path) == content
    if content:
        assert places.read_bytes(path, 2, 3) == content[2:5]
    with places.open_local(path) as stream:
        assert stream.read() == content
    (file,) = [file for name, file in places.list_files(place).items() if name.endswith("file")]
    assert (file.path, file.size) == (path, len(content))
    assert abs(file.updated - time.time()) < 300
    places.delete([path, f"{place}/none"])
    assert not places.list_files(f"{place}/folder")
    with pytest.raises(FileNotFoundError):
        places.read_bytes(path)
    with pytest.raises(FileNotFoundError), places.open_local(path):
        pass


def test_a_file_is_put_only_where_there_is_none(s3):
    assert places.write_new(f"{s3}/new", "1") and not places.write_new(f"{s3}/new", "2")
    assert places.read_bytes(f"{s3}/new") == b"1"


def test_a_block_that_raises_puts_nothing(place):
    places.write(f"{place}/file", "whole")
    with pytest.raises(RuntimeError), places.create(f"{place}/file") as stream:
        stream.write(b"half")
        raise RuntimeError
    assert places.read_bytes(f"{place}/file") == b"whole"


def test_a_store_that_does_not_answer_or_has_no_such_bucket_is_told(s3, monkeypatch):
    with pytest.raises(UserError, match="s3://no-bucket-here/x cannot be written: .*NoSuchBucket"):
        places.write("s3://no-bucket-here/x", "")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    places._store.cache_clear()
    with pytest.raises(UserError, match=f"{s3}/x cannot be listed: EndpointConnectionError"):
        places.list_files(f"{s3}/x")


# --- datasets ----------------------------------------------------------------------------


def test_a_dataset_from_and_on_s3_has_the_bytes_of_one_on_the_disk(
    server, base, monkeypatch, capsys
):
    monkeypatch.chdir(base)
    with s3_environment(server, with_endpoint=False):
        bucket = make_bucket(server)
        setting = ["--set", f"output.dataset_dir={bucket}/dataset"]
        beam = ["--", f"--s3_endpoint_url={server}"]
        run(*setting, *beam)
        local = contents(base / DATASET)
        assert stored(f"{bucket}/dataset") == local  # the manifest too
        run(*setting, *beam)
        assert f"{bucket}/dataset is complete" in capsys.readouterr().out
        with places.open_local(base / "corpus/all.jsonl") as source:
            places.write(f"{bucket}/in/all.jsonl", source.read())
        inputs = ["--set", f"data.inputs=['{bucket}/in/*.jsonl']"]
        with pytest.raises(UserError, match="made with another config"):
            run(*setting, *inputs, *beam)
        run(*setting, *inputs, "--overwrite", *beam)
        made = stored(f"{bucket}/dataset")
        assert set(made) > set(local)  # with the generation before, for its readers
        folder = manifests.read(f"{bucket}/dataset").generation
        shards = {name: content for name, content in local.items() if ".tfrecord-" in name}
        for name, content in shards.items():
            assert made[f"{folder}/{name.partition('/')[2]}"] == content == made[name]


def test_a_dataset_on_gcs_has_the_bytes_of_one_on_the_disk(gcs, base, monkeypatch):
    monkeypatch.chdir(base)
    run("--set", f"output.dataset_dir={gcs}/dataset")
    assert stored(f"{gcs}/dataset") == contents(base / DATASET)
    assert stored(f"{gcs}/dataset/{files_of(base / DATASET).name}")[manifests.REJECTS] == b""


def test_a_store_without_the_bucket_is_one_message_before_any_work(s3, base, monkeypatch):
    monkeypatch.chdir(base)
    with pytest.raises(UserError, match="s3://no-bucket-here/x.* cannot be .*NoSuchBucket"):
        run("--set", "output.dataset_dir=s3://no-bucket-here/x")


def test_what_is_no_dataset_on_a_store_is_never_replaced(s3, base, monkeypatch):
    monkeypatch.chdir(base)
    places.write(f"{s3}/x/mine", "precious")
    with pytest.raises(UserError, match="exists and is not a dataset"):
        run("--set", f"output.dataset_dir={s3}/x", "--overwrite")
    assert stored(s3) == {"x/mine": b"precious"}


def test_leftovers_of_a_killed_run_on_a_store_stay_a_day_for_it_may_be_live(s3, monkeypatch):
    name, other = generations.name_of("a"), generations.name_of("b")
    places.write(f"{s3}/x/{other}/work-1/spilled", "rows")
    places.write(f"{s3}/x/{name}/work-2/spilled", "rows")

    def make() -> set[str]:
        with generations.writing(f"{s3}/x", name, live=lambda: None, what="") as generation:
            places.write(f"{generation.work_dir}/spilled", "rows")
            generation.commit("mark", "", [])
        return set(places.list_files(f"{s3}/x"))

    assert make() == {"mark", f"{other}/work-1/spilled"}
    monkeypatch.setattr(generations, "ABANDONED_SECONDS", -60)
    assert make() == {"mark"}


# --- attempts that overlap -----------------------------------------------------------------


@pytest.fixture
def plan(place) -> ShardPlan:
    """A shard to write."""
    row = {"texts": ["same " * 50], "labels": [], "weight": 1.0, "metadata": [], "split": 0}
    rows = [{"digest": i.to_bytes(16, "big"), "id": b"%d" % i} | row for i in range(900)]
    path = f"{place}/work/b"
    write_table(path, pa.Table.from_pylist(rows, schema=ENCODED))
    return ShardPlan("train", 0, 1, (Bucket(0, path, len(rows), 0),), False)


def write_shard(place: str) -> WriteShard:
    return WriteShard("n", f"{place}/out", RecordSpec(), "none")


def test_attempts_at_one_shard_against_each_other_never_show_a_part_of_it(place, plan):
    ((_, _, info),) = write_shard(place).process(plan)
    whole = places.read_bytes(f"{place}/out/{info.file}")
    seen, results = set(), []
    attempts = [
        threading.Thread(
            target=lambda: [results.extend(write_shard(place).process(plan)) for _ in range(5)]
        )
        for _ in range(2)
    ]
    for attempt in attempts:
        attempt.start()
    while any(attempt.is_alive() for attempt in attempts):
        seen.add(places.read_bytes(f"{place}/out/{info.file}"))
    assert seen == {whole} and results == [("train", 0, info)] * 10
    assert set(places.list_files(f"{place}/out")) == {info.file}
    assert list(CheckShard(f"{place}/out").process(results[0])) == results[:1]


@pytest.mark.parametrize("fails", [False, True])
def test_a_zombie_that_ends_after_the_commit_changes_nothing(place, plan, fails, monkeypatch):
    def start() -> tuple[threading.Event, threading.Thread]:
        """An attempt that stops in the middle of its shard until it is told to go on."""
        go, waits = threading.Event(), threading.Event()

        def frame(record: bytes) -> bytes:
            if threading.current_thread() is zombie and record_count[0] == 400:
                waits.set()
                go.wait(30)
                if fails:
                    raise OSError("what it reads is gone")
            record_count[0] += threading.current_thread() is zombie
            return original(record)

        def attempt() -> None:
            try:
                list(WriteShard("n", generation.directory, RecordSpec(), "none").process(plan))
            except OSError:
                pass

        record_count, original = [0], writer.frame
        monkeypatch.setattr(writer, "frame", frame)
        zombie = threading.Thread(target=attempt)
        zombie.start()
        assert waits.wait(30)
        return go, zombie

    name = generations.name_of("x")
    with generations.writing(f"{place}/data", name, live=lambda: None, what="") as generation:
        go, zombie = start()
        do_fn = WriteShard("n", generation.directory, RecordSpec(), "none")
        ((_, _, info),) = do_fn.process(plan)
        generation.commit("mark", "", [generation.named(info)])
    before = stored(f"{place}/data")
    go.set()
    zombie.join()
    assert stored(f"{place}/data") == before
    assert set(before) == {"mark", f"{name}/{info.file}"}


def test_a_shard_that_is_not_as_it_was_written_fails_the_job(place, plan):
    ((_, _, info),) = write_shard(place).process(plan)
    places.write(f"{place}/out/{info.file}", places.read_bytes(f"{place}/out/{info.file}")[:-1])
    with pytest.raises(RuntimeError, match="has .* bytes and SHA-256 .*, as they were written"):
        list(CheckShard(f"{place}/out").process(("train", 0, info)))


# --- training ------------------------------------------------------------------------------


def trainer(*command: str) -> None:
    task.main([*command, "--config", "small.yaml"])


@pytest.fixture(scope="session")
def on_store(server, tmp_path_factory, trained):
    """A home whose dataset, run and model are on S3; and the bucket."""
    home = tmp_path_factory.mktemp("on_store")
    with s3_environment(server, with_endpoint=True), pytest.MonkeyPatch.context() as patch:
        bucket = make_bucket(server)
        patch.chdir(home)
        patch.setenv("MULTIHOT_CACHE_DIR", str(home / "cache"))
        source = trained.root / "out/small/dataset"
        for name in places.list_files(source):
            places.write(f"{bucket}/dataset/{name}", (source / name).read_bytes())
        config = (trained.root / "small.yaml").read_text()
        config = config.replace("output: {", f"output: {{dataset_dir: {bucket}/dataset, ")
        config = config.replace("train: {", f"train: {{run_dir: {bucket}/run, ")
        config = f"{config}\nexport: {{model_dir: {bucket}/model}}\n"
        places.write(f"{bucket}/small.yaml", config)
        for command in ("train", "evaluate", "export"):
            task.main([command, "--config", f"{bucket}/small.yaml"])
        yield home, bucket


def test_a_run_on_a_store_has_the_weights_and_evaluation_of_one_on_the_disk(
    on_store, trained, monkeypatch
):
    home, bucket = on_store
    found = places.list_files(f"{bucket}/run")
    local = places.list_files(trained.root / "out/small/run")
    is_log = re.compile("logs/|report/")
    assert {n for n in found if not is_log.match(n)} == {n for n in local if not is_log.match(n)}
    for name in found:
        places.download(f"{bucket}/run/{name}", home / "run" / name)
    assert_same_bits(home / "run", trained.root / "out/small/run")
    evaluation = "evaluation-test.json"
    assert (home / "run" / evaluation).read_bytes() == (
        trained.root / "out/small/run" / evaluation
    ).read_bytes()
    assert not list(home.glob("s3:*"))


def test_shards_come_from_the_cache_and_one_that_was_changed_is_told(on_store, tmp_path):
    home, bucket = on_store
    directory, manifest = dataset_cache.open_remote(f"{bucket}/dataset")
    assert directory.is_relative_to(home / "cache")
    shard = manifest.splits["train"].shards[0]
    assert (directory / shard.file).stat().st_size == shard.bytes  # as the training has left it
    stored = places.read_bytes(f"{bucket}/dataset/{shard.file}")
    (directory / shard.file).unlink()
    places.write(f"{bucket}/dataset/{shard.file}", bytes([stored[0] ^ 1]) + stored[1:])
    try:
        with pytest.raises(
            UserError, match=f"{shard.file} has SHA-256 .*, expected {shard.sha256}"
        ):
            dataset_cache.fetch(f"{bucket}/dataset", directory, [shard])
        assert not (directory / shard.file).exists()
    finally:
        places.write(f"{bucket}/dataset/{shard.file}", stored)
    dataset_cache.fetch(f"{bucket}/dataset", directory, [shard])
    assert (directory / shard.file).read_bytes() == stored
    assert not list(directory.rglob("*.tmp"))


def test_a_model_on_a_store_answers_predicts_in_bulk_and_leads_to_its_report(
    on_store, trained, monkeypatch, capsys
):
    home, bucket = on_store
    monkeypatch.chdir(home)
    task.main(["predict", "--model", f"{bucket}/model", "--json", "soup and bread"])
    assert json.loads(capsys.readouterr().out)["labels"][0] == "food"
    shutil.copy(trained.root / "documents.jsonl", home)
    predict.main(
        [
            *("--model", f"{bucket}/model", "--input", "documents.jsonl"),
            *("--output", f"{bucket}/predicted"),
        ]
    )
    summary = json.loads(places.read_bytes(f"{bucket}/predicted/predictions.json"))
    assert summary["model"] == f"{bucket}/model/1" and summary["written"] == 1200
    assert {info["file"] for info in summary["files"]} | {"predictions.json"} == set(
        places.list_files(f"{bucket}/predicted")
    )
    capsys.readouterr()
    task.main(["report", "--model", f"{bucket}/model"])
    assert f"wrote {bucket}/run/report/" in capsys.readouterr().out
    inspect.main([f"{bucket}/dataset", "--records=0"])
    shown = capsys.readouterr().out
    assert f"files: {bucket}/dataset/" in shown and "verified: " in shown


@pytest.mark.parametrize("killed_after", range(1, 9))
def test_a_push_that_is_killed_leaves_a_run_that_can_be_resumed(s3, monkeypatch, killed_after):
    """Each complete state that the list of checkpoints names has its index and data."""
    run_dir = f"{s3}/run{killed_after}"
    path = remote_directory.local(run_dir)

    def save(step: int) -> None:
        for suffix in ("data-00000-of-00001", "index"):
            places.write(path / f"checkpoints/ckpt-{step}.{suffix}", f"{step}")
        places.write(path / "checkpoints/checkpoint", f"{step}")
        for old in (path / "checkpoints").glob(f"ckpt-{step - 2}.*"):
            old.unlink()
        remote_directory.push(run_dir)

    save(1)
    requests, put = [0], places._store("s3").put

    def put_until_killed(*arguments) -> None:
        requests[0] += 1
        if requests[0] > killed_after:
            raise KeyboardInterrupt
        put(*arguments)

    monkeypatch.setattr(places._store("s3"), "put", put_until_killed)
    with contextlib.suppress(KeyboardInterrupt):
        for step in (2, 3, 4):
            save(step)
    found = stored(f"{run_dir}/checkpoints")
    newest = int(found["checkpoint"])
    assert newest == 1 + killed_after // 3
    for suffix in ("data-00000-of-00001", "index"):
        assert found[f"ckpt-{newest}.{suffix}"] == b"%d" % newest


def test_one_process_at_a_time_writes_a_run_and_what_has_not_changed_is_not_read_again(
    s3, monkeypatch
):
    run_dir = f"{s3}/run"
    path = remote_directory.local(run_dir)
    places.write(path / "checkpoints/ckpt-1.index", "1")
    remote_directory.push(run_dir)
    downloads, download = [], places.download
    monkeypatch.setattr(
        places, "download", lambda url, to: (downloads.append(url), download(url, to))
    )
    with remote_directory.exclusive(run_dir, "train.run_dir"):
        monkeypatch.setattr(store_lock, "_POLL_SECONDS", 0.02)
        another = {"token": "t", "holder": "process 7 of h"}
        remote_directory.refresh(run_dir)
        assert downloads == [f"{run_dir}/checkpoints/ckpt-1.index"]  # not again
        places.write(path / "history.json", "[]")
        places.write(f"{run_dir}/.lock", json.dumps(another))  # it has waited for us in vain
        with pytest.raises(UserError, match="process 7 of h writes .* in place of this process"):
            remote_directory.push(run_dir)
        assert "history.json" not in places.list_files(run_dir)
        places.delete([f"{run_dir}/.lock"])
        (path / "history.json").unlink()
    assert set(places.list_files(run_dir)) == {"checkpoints/ckpt-1.index"}


def test_python_opens_a_dataset_and_a_run_on_a_store_and_reports_there(on_store):
    _, bucket = on_store
    dataset = multihot.Dataset(f"{bucket}/dataset")
    assert dataset.splits["train"] and "food" in dataset.label_names and len(dataset.vocabulary)
    ((_, labels),) = dataset.tf_data("test", batch_size=10_000).as_numpy_iterator()
    assert labels.shape == (dataset.splits["test"], len(dataset.label_names))
    run = multihot.Run(f"{bucket}/run/")
    assert run.directory == f"{bucket}/run" and run.rows[0]["epoch"] == 1
    assert run.evaluation("test").documents == dataset.splits["test"]
    assert run.report().read_bytes() == places.read_bytes(f"{bucket}/run/report/index.html")
    assert multihot.load(f"{bucket}/model").label_names == dataset.label_names


# --- models and encoders ---------------------------------------------------------------------


def test_an_export_that_was_killed_is_no_version_and_the_next_one_removes_it(s3, tmp_path):
    for name in ("saved_model.pb", "README.md", "variables/variables.index"):
        places.write(tmp_path / "staged" / name, name)
    model_dir = f"{s3}/model"
    assert model_version.upload_version(tmp_path / "staged", model_dir) == f"{model_dir}/1"
    places.write(f"{model_dir}/2/variables/variables.index", "all that an upload has put")
    places.write(f"{model_dir}/2024/notes.txt", "somebody's own")
    assert saved_model.newest_version(model_dir) == f"{model_dir}/1"
    assert saved_model.find_version(model_dir) == f"{model_dir}/1"
    assert model_version.upload_version(tmp_path / "staged", model_dir) == f"{model_dir}/2025"
    names = {name.partition("/")[0] for name in places.list_files(model_dir)}
    assert names == {"1", "2024", "2025"}


def test_an_export_beside_another_one_is_refused(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(store_lock, "_BEAT_SECONDS", 0.05)
    monkeypatch.setattr(store_lock, "_POLL_SECONDS", 0.3)
    places.write(tmp_path / "saved_model.pb", "")
    with (
        store_lock.exclusive_on_store(f"{s3}/model", "export.model_dir"),
        pytest.raises(UserError, match="export.model_dir: .* is being written by process"),
    ):
        model_version.upload_version(tmp_path, f"{s3}/model")
    assert not places.list_files(f"{s3}/model")


def test_an_encoders_tokenizer_and_vectors_of_tokens_are_read_on_a_store(s3, tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIHOT_CACHE_DIR", str(tmp_path / "cache"))
    local, remote = str(write_tokenizer(tmp_path / "encoder")), f"{s3}/encoder"
    with pytest.raises(UserError, match=f"text.tokenizer: received '{remote}', which is no dire"):
        encoder_tokenizer.read_tokenizer(remote)
    for name in places.list_files(local):
        places.write(f"{remote}/{name}", places.read_bytes(f"{local}/{name}"))
    assert encoder_tokenizer.read_tokenizer(remote) == encoder_tokenizer.read_tokenizer(local)
    assert encoder_tokenizer.hash_of_files(remote) == encoder_tokenizer.hash_of_files(local)
    places.write(f"{remote}/tokenizer_config.json", '{"do_lower_case": false}')
    assert not encoder_tokenizer.read_tokenizer(remote).lower_case  # no copy from before
    places.write(f"{s3}/vectors.txt", "goal 1 2\nmatch 3 4\n")
    vectors = load_vectors(f"{s3}/vectors.txt", ["match", "soup"], dim=2)
    assert vectors.values.tolist() == [[3, 4], [0, 0]]
    with pytest.raises(UserError, match=f"cannot read {s3}/none.txt"):
        load_vectors(f"{s3}/none.txt", ["match"], dim=2)
