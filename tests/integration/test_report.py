"""The report of a run, made through the command line."""

import json
import re
import shutil
from pathlib import Path

import pytest

from beam_jobs.contract.errors import UserError
from tests.command_lines import fail_cleanly, succeed
from tests.reported_runs import NASTY, make_page, make_reported
from trainer.report.html_report import report
from trainer.runs.evaluation_record import read_evaluation


@pytest.fixture(scope="module")
def root(trained, tmp_path_factory):
    """Two runs; the first has a label, a text and an id that hold HTML."""
    return make_reported(trained, tmp_path_factory.mktemp("report") / "root")


@pytest.fixture(scope="module")
def page(root) -> Path:
    """The page of the first run, compared with the second."""
    return make_page(root)


def test_the_page_refers_to_nothing_outside_itself_and_every_plot_is_a_png_beside_it(page):
    text = page.read_text(encoding="utf-8")
    addresses = set(re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')\s>]+)", text))
    assert {address for address in addresses if not address.startswith(("#", "data:"))} == set()
    names = {path.stem for path in page.parent.glob("*.png")}
    assert names == set(re.findall(r'aria-label="([a-z0-9-]+)">', text)) and len(names) == 8
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in page.parent.glob("*.png"))


def test_ids_stand_once_in_the_page(page):
    ids = re.findall(r'\sid="([^"]+)"', page.read_text(encoding="utf-8"))
    assert len(ids) == len(set(ids)) > 20


def test_html_from_data_is_escaped(page):
    text = page.read_text(encoding="utf-8")
    assert NASTY not in text and "<script>document" not in text
    assert text.count("&lt;script&gt;document.title=") >= 6


def test_what_an_audit_has_found_is_shown(page, root, tmp_path):
    text = page.read_text(encoding="utf-8")
    assert 'href="#audit"' in text and "Labels that look wrong" in text
    report(run_dir=str(root / "out/other"), model_dir=None, output=str(tmp_path))
    assert "#audit" not in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_numbers_are_those_of_the_evaluation_and_the_manifest(root, page):
    text = page.read_text(encoding="utf-8")
    for method in read_evaluation(root / "out/small/run/evaluation-test.json").methods:
        row = re.search(rf'<td class="name">{re.escape(method.caption)}</td>(.*?)</tr>', text)[1]
        cells = re.findall(r"<td>(?:<b>)?([^<]*)", row)
        metrics = method.metrics
        assert cells[:3] == [
            f"{value:.3f}"
            for value in (metrics.micro_f1, metrics.macro_f1, metrics.macro_f1_present)
        ]
    counts = json.loads((root / "out/small/dataset/manifest.json").read_text())["counts"]
    assert f'<td class="name">read</td><td>{counts["read"]:,}</td>' in text


def test_compared_runs_stand_side_by_side_with_what_differs(page):
    text = page.read_text(encoding="utf-8")
    section = text[text.index('<section id="compare">') : text.index('<section id="learning">')]
    assert re.search(
        r'<td class="name">optimizer.learning_rate</td><td[^>]*>0.01</td><td[^>]*>0.5</td>', section
    )
    assert section.count("small (out/") == 2


def test_runs_are_compared_at_the_lowest_rank_of_the_first(root, tmp_path):
    shutil.copytree(root / "out/other", tmp_path / "ranked")
    path = tmp_path / "ranked/evaluation-test.json"
    evaluation = json.loads(path.read_text())
    for ranking in filter(None, (method["ranking"] for method in evaluation["methods"])):
        for key in ("precision_at", "recall_at", "ndcg_at", "propensity_scored_precision_at"):
            ranking[key] = {"2": 0.625, "10": 0.5}
    path.write_text(json.dumps(evaluation))
    report(
        run_dir=str(tmp_path / "ranked"),
        model_dir=None,
        compare=[str(root / "out/other")],
        output=str(tmp_path),
    )
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    section = text[text.index('<section id="compare">') : text.index('<section id="learning">')]
    assert "P@2</th>" in section and "P@1<" not in section
    rows = section[section.index("<tbody>") : section.index("</tbody>")].split("</tr>")[:2]
    assert [re.findall(r"<td[^>]*>([^<]*)", row)[4] for row in rows] == ["0.625", "–"]


def test_a_model_leads_to_its_run(root, tmp_path):
    printed = succeed(
        "trainer.task", "report", "--model", "out/small/model", "--output", str(tmp_path), cwd=root
    )
    assert f"wrote {tmp_path}/index.html" in printed
    assert "compare" not in re.findall(
        r'<section id="(\w+)"', (tmp_path / "index.html").read_text(encoding="utf-8")
    )


# --- wrong directories -----------------------------------------------------------------


def test_a_directory_of_something_else_is_told_in_one_message(root):
    assert "holds no training run" in fail_cleanly(
        "trainer.task", "report", "--run", "out/small/dataset", cwd=root
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"run_dir": "nowhere", "model_dir": None}, "nowhere is not a directory"),
        ({"run_dir": None, "model_dir": "out/small/dataset"}, "holds no exported model"),
        (
            {"run_dir": "out/small/run", "model_dir": None, "compare": ["out/small"]},
            "out/small holds no training run",
        ),
        (
            {"run_dir": "out/small/run", "model_dir": None, "output": "documents.jsonl/x"},
            "cannot write in",
        ),
        (
            {"run_dir": "unevaluated", "model_dir": None},
            "holds no evaluation; expected that of a validation or test split",
        ),
        (
            {"run_dir": "broken", "model_dir": None},
            "broken/evaluation-test.json is not an evaluation of format version 1 (Invalid JSON",
        ),
        (
            {"run_dir": "old", "model_dir": None},
            "old/evaluation-test.json is not an evaluation of format version 1 (format_version",
        ),
    ],
)
def test_what_cannot_be_reported_is_a_user_error(root, monkeypatch, arguments, message):
    monkeypatch.chdir(root)
    for name in ("unevaluated", "broken", "old"):
        shutil.copytree("out/other", name, dirs_exist_ok=True)
    for path in Path("unevaluated").glob("evaluation-*"):
        path.unlink()
    Path("broken/evaluation-test.json").write_text("{")
    Path("old/evaluation-test.json").write_text('{"systems": []}')
    with pytest.raises(UserError, match=re.escape(message)):
        report(**arguments)
