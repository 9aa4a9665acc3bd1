"""Which code may import which: the arrows of the design, read from the source."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND_LINES = ("beam_jobs.preprocess", "beam_jobs.predict", "trainer.task")


def imports_of(source: str, *, module: str, is_package: bool = False) -> set[str]:
    """Every module that source imports, at any depth; `from a import b` counts as `a` and as `a.b`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = (
                module.split(".")[: len(module.split(".")) - node.level + is_package]
                if node.level
                else []
            )
            origin = ".".join([*base, *([node.module] if node.module else [])])
            found |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and getattr(
            node.func, "attr", getattr(node.func, "id", "")
        ) in ("import_module", "__import__"):
            found |= {
                argument.value
                for argument in node.args
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
            }
    return found


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def modules(*folders: str) -> dict[str, set[str]]:
    """The imports of every module in the folders, by the module's name."""
    found = {}
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        is_package = path.name == "__init__.py"
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts[: -1 if is_package else None])
        found[name] = imports_of(
            path.read_text(encoding="utf-8"), module=name, is_package=is_package
        )
    return found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a.b as c, d", {"a.b", "d"}),
        ("def f():\n  from a.b import c", {"a.b", "a.b.c"}),
        ("from . import x", {"p.q", "p.q.x"}),
        ("from ..r import x", {"p.r", "p.r.x"}),
        ("importlib.import_module('a.b')", {"a.b"}),
    ],
)
def test_the_reader_of_imports_sees_every_form(source, expected):
    assert imports_of(source, module="p.q.m") == expected
    assert imports_of(source, module="p.q", is_package=True) == expected


def test_beam_jobs_never_imports_trainer():
    found = modules("beam_jobs")
    assert "beam_jobs.contract.config" in found  # the walk sees the code
    assert [
        (name, i) for name, imports in found.items() for i in imports if is_within(i, "trainer")
    ] == []


def test_trainer_imports_nothing_of_beam_jobs_but_the_contract():
    wrong = [
        (name, i)
        for name, imports in modules("trainer").items()
        for i in imports
        if is_within(i, "beam_jobs") and i != "beam_jobs" and not is_within(i, "beam_jobs.contract")
    ]
    assert wrong == []
    assert [
        name
        for name, imports in modules("trainer").items()
        if any(is_within(i, "apache_beam") for i in imports)
    ] == []


def test_contract_imports_neither_beam_nor_keras():
    found = modules("beam_jobs/contract")
    wrong = [
        (name, i)
        for name, imports in found.items()
        for i in imports
        for package in ("apache_beam", "keras", "tensorflow.keras")
        if is_within(i, package)
    ]
    assert wrong == []
    for path in (ROOT / "beam_jobs/contract").glob("*.py"):
        attributes = {
            node.attr
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Attribute)
        }
        assert "keras" not in attributes, path  # tf.keras


def test_contract_imports_nothing_of_ours_but_itself():
    wrong = [
        (name, i)
        for name, imports in modules("beam_jobs/contract").items()
        for i in imports
        if is_within(i, "beam_jobs") and i != "beam_jobs" and not is_within(i, "beam_jobs.contract")
    ]
    assert wrong == []


def test_nobody_imports_a_command_line():
    wrong = [
        (name, i)
        for name, imports in modules("beam_jobs", "trainer", "scripts").items()
        for i in imports
        for c in COMMAND_LINES
        if is_within(i, c)
    ]
    assert wrong == []


def test_contract_answers_a_wrong_config_without_any_heavy_import(tmp_path):
    config = tmp_path / "x.yaml"
    config.write_text("name: x\ndata: {source: python_docstrings}\n")
    light = sorted(
        name for name in modules("beam_jobs/contract") if name != "beam_jobs.contract.analyzer"
    )
    assert {
        "beam_jobs.contract.config",
        "beam_jobs.contract.manifest",
        "beam_jobs.contract.command_line",
    } <= set(light)
    script = f"""
import importlib, json, sys
heavy = ("tensorflow", "tensorflow_text", "apache_beam", "keras", "numpy", "sklearn", "pyarrow")
loaded = {{}}
def note(step):
    loaded[step] = [name for name in heavy if name in sys.modules]
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
for call in (lambda: load_config({str(config)!r}, overrides=["train.epochs=x"]), lambda: load_config("nowhere"), lambda: load({str(tmp_path)!r})):
    try:
        call()
    except UserError:
        failed += 1
note(f"{{failed}} errors")
describe_keys(Config)
note("describe_keys")
print(json.dumps(loaded))
"""
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    loaded = json.loads(ended.stdout)
    assert loaded == dict.fromkeys([*light, "load_config", "3 errors", "describe_keys"], [])
