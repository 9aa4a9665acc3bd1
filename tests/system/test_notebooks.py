"""The notebooks of the documentation run from top to bottom, as a reader would run them."""

import os
import runpy
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_is_kept_with_outputs_of_every_cell_that_has_one(
    path, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    runpy.run_path(str(ROOT / "docs/snippets/make_tickets.py"))  # what one of them reads
    notebook = nbformat.read(path, as_version=4)
    kept = [_has_result(cell) for cell in notebook.cells]
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    assert [_has_result(cell) for cell in notebook.cells] == kept


def _has_result(cell) -> bool:
    return any(output.output_type == "execute_result" for output in cell.get("outputs", ()))
