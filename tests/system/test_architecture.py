"""Which code may import which, and what is answered before anything heavy is loaded."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.command_lines import ROOT

HEAVY = ("tensorflow", "tensorflow_text", "apache_beam", "keras", "numpy", "sklearn", "pyarrow")


def test_the_contracts_of_imports_in_pyproject_are_kept():
    script = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0 and " 0 broken" in ended.stdout, ended.stdout + ended.stderr


def test_what_import_linter_does_not_see():
    for path in (ROOT / "beam_jobs/contract").glob("*.py"):
        assert not re.search(r"\btf\.keras\b", path.read_text(encoding="utf-8")), path
    command_lines = r"(beam_jobs\.(preprocess|predict|inspect|worker)|trainer\.task)\b"
    for path in (ROOT / "scripts").glob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert not re.search(rf"^ *(from|import) {command_lines}", source, re.MULTILINE), path


def run(script: str):
    """What a script prints as JSON, in a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0 and "Traceback" not in ended.stderr, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def test_contract_answers_a_wrong_config_without_any_heavy_import(tmp_path):
    config = tmp_path / "x.yaml"
    config.write_text("name: x\ndata: {source: python_docstrings}\n")
    light = sorted(
        f"beam_jobs.contract.{path.stem}"
        for path in (ROOT / "beam_jobs/contract").glob("*.py")
        if path.stem not in ("__init__", "analyzer")
    )
    assert "beam_jobs.contract.config" in light
    loaded = run(f"""
import importlib, json, sys
loaded = {{}}
def note(step):
    loaded[step] = [name for name in {HEAVY} if name in sys.modules]
for name in {light!r}:
    importlib.import_module(name)
    note(name)
from beam_jobs.contract.config import Config, load_config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import load
from beam_jobs.contract.validation import describe_keys
load_config({str(config)!r}).to_yaml()
note("load_config")
failed = 0
for call in (
    lambda: load_config({str(config)!r}, overrides=["train.epochs=x"]),
    lambda: load_config("nowhere"),
    lambda: load({str(tmp_path)!r}),
):
    try:
        call()
    except UserError:
        failed += 1
note(f"{{failed}} errors")
describe_keys(Config)
note("describe_keys")
print(json.dumps(loaded))
""")
    assert loaded == dict.fromkeys([*light, "load_config", "3 errors", "describe_keys"], [])


TRAINER = ("train", "evaluate", "export", "predict", "explain", "serve", "report")
ANSWERED_AT_ONCE = [
    *(("beam_jobs.preprocess", ["--help"], 0), ("beam_jobs.preprocess", ["--list-keys"], 0)),
    *(("beam_jobs.preprocess", [], 2), ("beam_jobs.preprocess", ["--confg", "x"], 2)),
    ("beam_jobs.preprocess", ["--config", "nowhere"], 2),
    *(("beam_jobs.predict", ["--help"], 0), ("beam_jobs.predict", [], 2)),
    *(("beam_jobs.inspect", ["--help"], 0), ("beam_jobs.inspect", [], 2)),
    *(("trainer.task", ["--help"], 0), ("trainer.task", [], 2)),
    *(("trainer.task", [command, "--help"], 0) for command in TRAINER),
    *(("trainer.task", [command, "--config", "nowhere"], 2) for command in TRAINER[:3]),
]


def test_importing_any_module_of_the_trainer_leaves_tensorflow_unused():
    """Devices and workers are set up before its first use, and a process that was forked from one
    with TensorFlow's threads waits for them forever.
    """
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "trainer").rglob("*.py")
        if path.name != "__init__.py"
    )
    found = run(f"""
import importlib, json
import tensorflow as tf
from tensorflow.python.eager import context
found = []
for name in {modules!r}:
    importlib.import_module(name)
    if context.context()._initialized:
        found.append(name)
        break
if not found:
    (cpu,) = tf.config.list_physical_devices("CPU")
    # It fails once TensorFlow is in use.
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    assert len(tf.config.list_logical_devices("CPU")) == 2
print(json.dumps(found))
""")
    assert found == []


def test_help_and_wrong_configs_are_answered_without_tensorflow_or_beam():
    found = run(f"""
import contextlib, io, json, runpy, sys
found = []
for module, arguments, _ in {ANSWERED_AT_ONCE!r}:
    sys.argv = [module, *arguments]
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module(module, run_name="__main__")
        except SystemExit as end:
            status = end.code or 0
    loaded = [name for name in {HEAVY} if name in sys.modules]
    found.append([status, loaded, out.getvalue(), err.getvalue()])
print(json.dumps(found))
""")
    for (module, arguments, expected), (status, loaded, out, err) in zip(
        ANSWERED_AT_ONCE, found, strict=True
    ):
        assert (status, loaded) == (expected, []), (module, arguments, err)
        if arguments[-1:] == ["--help"]:
            assert "usage: " in out
        elif status:
            assert "error: " in err and "Traceback" not in err
    help_text = " ".join(found[0][2].split())
    for flag in ("--config", "--set", "--list-keys", "--overwrite", "--force"):
        assert flag in help_text
    assert "Everything after `--` goes to Apache Beam" in help_text


@pytest.mark.parametrize(
    ("imports", "loaded"),
    [
        ("import multihot", []),
        ("from multihot import Document, Reject", []),
        ("from multihot import InputFile, Reader", ["apache_beam"]),
    ],
)
def test_a_name_of_multihot_loads_no_more_than_it_needs(imports, loaded):
    found = run(f"""
import json, sys
{imports}
print(json.dumps([n for n in ("tensorflow", "keras", "apache_beam") if n in sys.modules]))
""")
    assert found == loaded


def test_files_are_inspected_without_tensorflow(tmp_path):
    (tmp_path / "in.csv").write_text("text,tags\nsome words here,a;b\nother words of it,b\n")
    loaded = run(f"""
import contextlib, io, json, sys
from beam_jobs import inspect
out = io.StringIO()
with contextlib.redirect_stdout(out):
    inspect.main([{str(tmp_path / "in.csv")!r}])
assert "with 2 labels" in out.getvalue(), out.getvalue()
print(json.dumps([name for name in ("tensorflow", "keras", "sklearn") if name in sys.modules]))
""")
    assert loaded == []


def test_files_are_inspected_on_a_terminal_that_is_not_utf8(tmp_path):
    (tmp_path / "in.csv").write_text(
        "text,tags\ncaf\u00e9 au lait \U0001f600,a;b\nth\u00e9,b\n", "utf-8"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "beam_jobs.inspect", str(tmp_path / "in.csv")],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 0 and b"Traceback" not in ended.stderr, ended.stderr
    assert b"caf\\xe9 au lait \\U0001f600" in ended.stdout
