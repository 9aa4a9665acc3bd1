"""The notebooks of the documentation run from top to bottom, as a reader would run them."""

import ast
import os
import runpy
import sys
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "docs/notebooks"
OTHERS = sorted({*NOTEBOOKS.glob("*.ipynb")} - {NOTEBOOKS / "own_table.ipynb"})


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path) -> Path:
    """A working directory with the tickets that notebooks read, fewer than a reader has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    runpy.run_path(str(ROOT / "docs/snippets/make_tickets.py"))
    tickets = tmp_path / "tickets.csv"
    tickets.write_text("".join(tickets.read_text().splitlines(keepends=True)[:901]))
    return tmp_path


@pytest.mark.slow
def test_a_notebook_runs_in_jupyter_and_is_kept_with_outputs_of_every_cell_that_has_one(place):
    notebook = nbformat.read(NOTEBOOKS / "own_table.ipynb", as_version=4)
    kept = [_has_result(cell) for cell in notebook.cells]
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(place)}}
    )
    client.execute()
    assert [_has_result(cell) for cell in notebook.cells] == kept


@pytest.mark.slow
@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_cells_of_a_notebook_run_and_are_kept_with_outputs_where_they_have_one(path, monkeypatch):
    """In this process, whose programs are imported already."""
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    names: dict[str, object] = {}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            source = cell.source.replace("range(3000)", "range(900)")
            value = _run(source.replace('"epochs": 4', '"epochs": 1'), names)
            assert (value is not None) == _has_result(cell), cell.source
            assert repr(value)


def _run(source: str, names: dict[str, object]) -> object:
    """The value of the last line, which a notebook shows."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return last and eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def _has_result(cell) -> bool:
    return any(output.output_type == "execute_result" for output in cell.get("outputs", ()))
