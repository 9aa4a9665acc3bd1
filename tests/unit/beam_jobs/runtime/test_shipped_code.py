"""Modules of the user's own travel with a job."""

import sys

import pytest
from apache_beam.internal.cloudpickle import cloudpickle

from beam_jobs.contract import user_code
from beam_jobs.contract.errors import UserError
from beam_jobs.runtime import shipped_code


@pytest.fixture
def own_modules(tmp_path, monkeypatch):
    """A module that the config names, the one beside it that it imports, and the first's class."""
    (tmp_path / "own_helper.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "own_reader.py").write_text(
        "import own_helper\nclass Reader:\n    def read(self, x):\n"
        "        return own_helper.double(x)\n"
    )
    monkeypatch.setattr(user_code, "_loaded", [])
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield user_code.load("own_reader:Reader", key="data.reader")
    _forget()


def _forget():
    for name in ("own_reader", "own_helper"):
        sys.modules.pop(name, None)


def test_a_worker_without_the_modules_runs_what_was_sent(own_modules, monkeypatch, tmp_path):
    with shipped_code.with_the_job():
        sent = cloudpickle.dumps(own_modules())
    by_name = cloudpickle.dumps(own_modules())
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(tmp_path)])
    _forget()
    assert cloudpickle.loads(sent).read(4) == 8
    with pytest.raises(ModuleNotFoundError):
        cloudpickle.loads(by_name)


def test_what_is_installed_and_ours_is_not_sent(monkeypatch):
    monkeypatch.setattr(user_code, "_loaded", ["numpy.linalg", "beam_jobs.sources.fields", "os"])
    assert shipped_code._own_modules() == []


def test_a_name_that_cannot_be_imported_is_not_sent(monkeypatch):
    monkeypatch.setattr(user_code, "_loaded", [])
    with pytest.raises(UserError):
        user_code.load("no_such_module_anywhere:X", key="data.reader")
    assert user_code.loaded() == () and shipped_code._own_modules() == []
