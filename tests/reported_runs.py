"""Runs whose report is tested: in its text, and in a browser."""

import json
import re
import shutil
from pathlib import Path

from tests.command_lines import succeed
from tests.small_experiment import Trained
from trainer.auditing import COLUMNS, as_csv

NASTY = "<script>document.title='taken'</script>&amp;\"'$x$"


def make_reported(trained: Trained, root: Path) -> Path:
    """The experiment with a second run of another learning rate beside it.

    The first has a label, a text and an id that hold HTML, and so has its audit.
    """
    shutil.copytree(trained.root, root)
    shutil.copytree(root / "out/small/run", root / "out/other")
    config = (root / "out/other/config.yaml").read_text()
    (root / "out/other/config.yaml").write_text(
        re.sub(r"learning_rate: \S+", "learning_rate: 0.5", config)
    )
    path = root / "out/small/run/evaluation-test.json"
    evaluation = json.loads(path.read_text())
    evaluation["per_label"]["name"][0] = NASTY
    evaluation["confusions"]["pairs"].insert(
        0, {"present": NASTY, "predicted": NASTY, "documents": 1}
    )
    evaluation["errors"]["wrong"].insert(
        0, {"label": NASTY, "score": 0.5, "labels": [NASTY], "text": NASTY, "id": NASTY}
    )
    evaluation["slices"].append(evaluation["slices"][0] | {"by": NASTY, "name": NASTY})
    path.write_text(json.dumps(evaluation))
    suspect = dict.fromkeys(COLUMNS, NASTY) | {"kind": "wrong"}
    (root / "out/small/run-audit").mkdir()
    (root / "out/small/run-audit/audit.csv").write_text(as_csv([suspect]))
    return root


def make_page(root: Path) -> Path:
    """The page of the first run, compared with the second."""
    printed = succeed(
        "trainer.task", "report", "--run", "out/small/run", "--compare", "out/other", cwd=root
    )
    assert "wrote out/small/run/report/index.html and 8 plots" in printed
    return root / "out/small/run/report/index.html"
