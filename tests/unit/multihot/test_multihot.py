"""The names that users' own code imports."""

import ast
from pathlib import Path

import pytest

import multihot


@pytest.mark.parametrize("name", multihot.__all__)
def test_every_name_is_that_of_its_package(name):
    value = getattr(multihot, name)
    assert value.__name__ == name and value.__module__ == multihot._MODULES[name]
    assert name in dir(multihot)


def test_type_checkers_see_the_names_that_there_are():
    """The imports under TYPE_CHECKING, which never run, agree with what is loaded."""
    tree = ast.parse(Path(multihot.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == multihot._MODULES and sorted(seen) == multihot.__all__


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'multihot' has no attribute 'Documents'"):
        multihot.Documents  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Documents'"):
        exec("from multihot import Documents")
