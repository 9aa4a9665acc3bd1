"""Encoders by the name of a hub, whose libraries are stand-ins here."""

import sys
from types import SimpleNamespace

import pytest

from beam_jobs.contract import encoder_names
from beam_jobs.contract.encoder_names import directory_of
from beam_jobs.contract.errors import UserError


@pytest.fixture
def asked(monkeypatch):
    """What the libraries were asked for; each gives the directory `copy`."""
    calls = []

    def get(*names, **options):
        calls.append((*names, options))
        return "copy"

    hub = SimpleNamespace(snapshot_download=get)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(model_download=get))
    encoder_names._copy_of.cache_clear()
    yield calls
    encoder_names._copy_of.cache_clear()


def test_a_name_of_a_hub_is_a_local_copy_and_all_else_a_directory(asked):
    assert directory_of("models/minilm", key="text.tokenizer") == "models/minilm" and not asked
    for _ in range(2):  # it is got once
        assert directory_of("hf://owner/name@abc", key="text.tokenizer") == "copy"
    directory_of("hf://owner/name", key="model.backbone", with_weights=True)
    assert directory_of("kaggle://keras/bert/keras/tiny/2", key="text.tokenizer") == "copy"
    (name, options), (whole_name, whole), (handle, _) = asked
    assert (name, options["revision"]) == ("owner/name", "abc")
    assert (whole_name, whole["revision"]) == ("owner/name", None)
    assert set(whole["allow_patterns"]) > set(options["allow_patterns"])
    assert handle == "keras/bert/keras/tiny/2"


def test_without_a_network_or_the_library_it_is_said_what_to_do(asked, monkeypatch):
    def fail(*_, **__):
        raise OSError("Name or service not known\nand much more")

    monkeypatch.setattr(sys.modules["huggingface_hub"], "snapshot_download", fail)
    expected = (
        "text.tokenizer: cannot get hf://owner/name: Name or service not known; expected the name "
        "of an encoder and a network that reaches it, or the directory of one on disk"
    )
    with pytest.raises(UserError) as error:
        directory_of("hf://owner/name", key="text.tokenizer")
    assert str(error.value) == expected
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(UserError, match="model.backbone: .*pip install 'multihot"):
        directory_of("kaggle://a/b", key="model.backbone")
