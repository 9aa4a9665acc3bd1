"""The user's own modules: where they are found, and what is said where one cannot be imported."""

import sys

import pytest

from beam_jobs.contract import user_code
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.user_code import load


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """An empty working directory, and a directory of configs elsewhere."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(user_code, "_config_dirs", [])
    loaded = set(sys.modules)
    (tmp_path / "work").mkdir()
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield
    for name in set(sys.modules) - loaded:
        del sys.modules[name]


def test_a_module_of_the_working_directory_is_found(tmp_path):
    (tmp_path / "work/own.py").write_text("value = 1")
    assert load("own:value", key="model.build") == 1


def test_a_module_beside_the_config_is_found_after_one_of_the_working_directory(tmp_path):
    (tmp_path / "configs/own.py").write_text("value = 2")
    with pytest.raises(UserError, match="No module named 'own'; .* beside the config"):
        load("own:value", key="model.build")
    user_code.search_beside(tmp_path / "configs/x.yaml")
    assert load("own:value", key="model.build") == 2
    del sys.modules["own"]
    sys.path[:] = [folder for folder in sys.path if not folder.startswith(str(tmp_path))]
    (tmp_path / "work/own.py").write_text("value = 1")
    assert load("own:value", key="model.build") == 1


def test_a_module_beside_the_config_takes_no_installed_modules_place(tmp_path):
    (tmp_path / "configs/numpy.py").write_text("ndarray = None")
    user_code.search_beside(tmp_path / "configs/x.yaml")
    assert load("numpy:ndarray", key="model.build") is not None


@pytest.mark.parametrize(
    ("content", "path", "expected"),
    [
        (None, "own:value", "No module named 'own'; expected package.module:name of a module in"),
        (None, "own.part:value", "No module named 'own'; expected package.module:name of a module"),
        ("", "own.part:value", "No module named 'own.part'; 'own' is not a package; expected"),
        ("", "own:value", "module 'own' has no attribute 'value'; expected .*own.py defines"),
        (
            "import no_such_library",
            "own:value",
            "the module raises ModuleNotFoundError: No module named 'no_such_library'; expected",
        ),
        (
            "raise ImportError('build the extension first')",
            "own:value",
            "the module raises ImportError: build the extension first; expected a module that can",
        ),
    ],
)
def test_what_cannot_be_imported_is_told_with_its_key_and_reason(tmp_path, content, path, expected):
    if content is not None:
        (tmp_path / "work/own.py").write_text(content)
    with pytest.raises(UserError, match=expected) as raised:
        load(path, key="model.build")
    assert str(raised.value).startswith(f"model.build: received {path!r}: ")


def test_a_fault_of_the_module_itself_passes_through(tmp_path):
    (tmp_path / "work/own.py").write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        load("own:value", key="model.build")
