"""The docstrings reader: which docstrings, with which labels; nothing is imported."""

import ast
import gc
import os
import sys

import pytest

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.data import PythonDocstringsData
from beam_jobs.sources import docstrings
from beam_jobs.sources.docstrings import DocstringsReader
from beam_jobs.sources.documents import Reject
from beam_jobs.sources.fields import TOO_LONG

MODULE = '''
"""Module of the made package."""
raise RuntimeError("this module must not be imported")

class Outer(Base):
    """Outer class of the module."""

    def method(self):
        """Method of the outer class."""

    class Inner:
        """Inner class of the outer."""
        async def wait(self):
            """Waits in the inner class."""

if sys.platform == "x":
    def on_x():
        """Function in an if block."""
elif y:
    def on_y():
        """Function in an elif block."""
try:
    def tried():
        """Function in a try block."""
except ImportError:
    def rescued():
        """Function in an except block."""
else:
    def otherwise():
        """Function in an else block."""
finally:
    def at_last():
        """Function in a finally block."""
with a as b:
    for i in c:
        while d:
            def looped():
                """Function in a while block."""
match e:
    case 1:
        def matched():
            """Function in a case block."""

def outer():
    "Function with plain quotes."
    def local():
        """Function within a function."""

def short():
    """Too short."""

def formatted():
    f"""No docstring, since formatted {x}."""
'''


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A small package `made_package` on sys.path."""
    package = tmp_path / "made_package"
    (package / "deep/down").mkdir(parents=True)
    (package / "__init__.py").write_text('"""The made package itself."""')
    (package / "things.py").write_text(MODULE)
    (package / "deep/down/low.py").write_text('"""A module that is deep down."""\n')
    (package / "deep/down/broken.py").write_text("x = 1\ny = = 2\n")
    (package / "deep/down/latin.py").write_bytes(
        '# coding: latin-1\n"""A café is written here."""'.encode("latin-1")
    )
    (package / "__pycache__").mkdir()
    (package / "__pycache__/things.py").write_text('"""No source file stands here."""')
    (package / "notes.txt").write_text('"""No Python file is this."""')
    os.symlink(tmp_path / "nowhere", package / "dangling.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def read(**data):
    reader = DocstringsReader(PythonDocstringsData(source="python_docstrings", **data))
    return [row for file in reader.files() for row in reader.read(file)]


def test_every_definition_in_every_kind_of_block_is_found_with_its_kind_and_line(made):
    rows = {
        row.id: row
        for row in read(packages=("made_package",), min_words=3, label_depth=9)
        if row.source == "made_package/things.py"
    }
    expected = {
        "": ("module", 1),
        ":Outer": ("class", 5),
        ":Outer.method": ("function", 8),
        ":Outer.Inner": ("class", 11),
        ":Outer.Inner.wait": ("function", 13),
        ":on_x": ("function", 17),
        ":on_y": ("function", 20),
        ":tried": ("function", 23),
        ":rescued": ("function", 26),
        ":otherwise": ("function", 29),
        ":at_last": ("function", 32),
        ":looped": ("function", 37),
        ":matched": ("function", 41),
        ":outer": ("function", 44),
        ":outer.local": ("function", 46),
    }
    assert {name: (row.labels[-1], row.row) for name, row in rows.items()} == {
        f"made_package.things{name}": (f"kind:{kind}", line)
        for name, (kind, line) in expected.items()
    }
    assert list(rows) == [
        f"made_package.things{name}" for name in expected
    ]  # in the order of the file
    assert rows["made_package.things:outer"].texts[0] == "Function with plain quotes."
    assert "made_package.things" not in sys.modules and "made_package" not in sys.modules


@pytest.mark.parametrize(
    ("depth", "labels"),
    [
        (1, ["made_package"]),
        (2, ["made_package", "made_package.deep"]),
        (
            9,
            [
                "made_package",
                "made_package.deep",
                "made_package.deep.down",
                "made_package.deep.down.low",
            ],
        ),
    ],
)
def test_labels_are_the_modules_down_to_label_depth_and_the_kind(made, depth, labels):
    rows = {
        row.id: row
        for row in read(packages=("made_package",), min_words=1, label_depth=depth)
        if not isinstance(row, Reject)
    }
    assert rows["made_package.deep.down.low"].labels == (*labels, "kind:module")
    assert rows["made_package"].labels == ("made_package", "kind:module")


def test_min_words_leaves_out_shorter_docstrings(made):
    texts = {
        words: {
            row.texts[0]
            for row in read(packages=("made_package",), min_words=words)
            if not isinstance(row, Reject)
        }
        for words in (1, 3, 6)
    }
    assert "Too short." in texts[1] - texts[3]
    assert texts[6] == {"A module that is deep down."}


def test_a_file_that_is_no_python_is_one_reject_with_file_and_line(made):
    (reject,) = [row for row in read(packages=("made_package",)) if isinstance(row, Reject)]
    assert (reject.source, reject.row, reject.reason, reject.content) == (
        "made_package/deep/down/broken.py",
        2,
        "not Python",
        "y = = 2",
    )
    assert reject.detail.startswith("SyntaxError")


@pytest.mark.parametrize(
    "source",
    [
        b"x = '\0'",
        b"\xff",
        b"(" * 100_000 + b")" * 100_000,
        b"-" * 200_000 + b"1",
        b"# coding: nosuch\n",
    ],
)
def test_sources_that_break_the_parser_are_rejects_too(made, source):
    (made / "made_package/deep/down/broken.py").write_bytes(source)
    rejects = [
        row for row in read(packages=("made_package",), min_words=3) if isinstance(row, Reject)
    ]
    assert [(row.source, row.reason) for row in rejects] == [
        ("made_package/deep/down/broken.py", "not Python")
    ]


def test_a_very_long_file_is_a_reject_and_is_not_parsed(made):
    (made / "made_package/deep/down/broken.py").write_bytes(b"x = 1\n" * 3_000_000)
    (reject,) = [row for row in read(packages=("made_package",)) if isinstance(row, Reject)]
    assert (reject.source, reject.reason, reject.content) == (
        "made_package/deep/down/broken.py",
        TOO_LONG,
        "",
    )


def test_the_sources_own_encoding_is_used(made):
    assert "A café is written here." in {
        row.texts[0]
        for row in read(packages=("made_package",), min_words=3)
        if not isinstance(row, Reject)
    }


def test_packages_may_be_one_file_a_namespace_and_named_twice(made):
    (made / "made_single.py").write_text('"""A package of one single file."""')
    (made / "made_namespace").mkdir()
    (made / "made_namespace/inside.py").write_text('"""A module in a namespace package."""')
    rows = read(packages=("made_single", "made_namespace", "made_single"), min_words=1)
    assert [(row.id, row.labels) for row in rows] == [
        ("made_namespace.inside", ("made_namespace", "made_namespace.inside", "kind:module")),
        ("made_single", ("made_single", "kind:module")),
    ]


def test_a_package_that_is_not_installed_is_the_users_error(made):
    with pytest.raises(UserError, match="no installed package 'made_pakcage'"):
        read(packages=("made_package", "made_pakcage"))


def test_stdlib_is_the_standard_library_alone():
    reader = DocstringsReader(
        PythonDocstringsData(source="python_docstrings", packages=("stdlib",))
    )
    names = [file.name for file in reader.files()]
    assert {"argparse.py", "json/__init__.py"} <= set(names)
    assert names == sorted(set(names))
    assert {name.split("/")[0].removesuffix(".py") for name in names} <= set(
        sys.stdlib_module_names
    ) | {"__phello__", "__hello__"} | {
        name.removesuffix(".py") for name in names if "/" not in name
    }
    assert not [name for name in names if name.startswith(("test/", "site-packages/", "idlelib/"))]


def test_no_packages_means_all_that_is_installed():
    reader = DocstringsReader(PythonDocstringsData(source="python_docstrings"))
    names = {file.name for file in reader.files()}
    assert {"argparse.py", "pytest/__init__.py", "numpy/__init__.py"} <= names
    assert not [name for name in names if "site-packages" in name]


def test_the_walk_over_blocks_finds_what_a_walk_over_the_whole_tree_finds():
    with open(ast.__file__, "rb") as stream:
        tree = ast.parse(stream.read())
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    expected = {
        (getattr(node, "lineno", 1), ast.get_docstring(node))
        for node in ast.walk(tree)
        if isinstance(node, kinds)
    }
    found = {(line, text) for _, line, _, text in docstrings._docstrings(tree)}
    assert found == {pair for pair in expected if pair[1]}
    assert len(found) > 30


def test_every_block_of_statements_in_pythons_grammar_is_walked():
    statements = [
        node
        for node in vars(ast).values()
        if isinstance(node, type)
        and issubclass(node, ast.stmt | ast.excepthandler | ast.match_case)
    ]
    fields = {field for node in statements for field in node._fields}
    blocks = {"body", "handlers", "orelse", "finalbody", "cases"}
    assert set(docstrings._BLOCKS) == blocks
    assert fields - blocks == {
        *(
            "name",
            "args",
            "decorator_list",
            "returns",
            "type_comment",
            "type_params",
            "bases",
            "keywords",
            "value",
            "targets",
            "target",
            "op",
        ),
        *(
            "annotation",
            "simple",
            "iter",
            "test",
            "items",
            "subject",
            "exc",
            "cause",
            "msg",
            "names",
            "module",
            "level",
            "type",
            "pattern",
            "guard",
        ),
    } - (set() if "type_params" in fields else {"type_params"})


@pytest.mark.parametrize("was_on", [True, False])
def test_reading_leaves_the_garbage_collector_as_it_was(made, was_on):
    (gc.enable if was_on else gc.disable)()
    try:
        rows = read(packages=("made_package",), min_words=1)
        assert rows and gc.isenabled() is was_on
    finally:
        gc.enable()
