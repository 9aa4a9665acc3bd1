"""The report of a run, made through the command line and used in a browser."""

import json
import re
import shutil
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from beam_jobs.contract.errors import UserError
from tests.command_lines import fail_cleanly, skip_without, succeed
from trainer.report.html_report import report

NASTY = "<script>document.title='taken'</script>&amp;\"'$x$"
CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"


@pytest.fixture(scope="module")
def root(trained, tmp_path_factory):
    """The experiment with a second run beside it, of another learning rate; the first has a label, a text and an id that hold HTML."""
    root = tmp_path_factory.mktemp("report") / "root"
    shutil.copytree(trained.root, root)
    shutil.copytree(root / "out/small/run", root / "out/other")
    config = (root / "out/other/config.yaml").read_text()
    (root / "out/other/config.yaml").write_text(
        re.sub(r"learning_rate: \S+", "learning_rate: 0.5", config)
    )
    path = root / "out/small/run/evaluation-test.json"
    evaluation = json.loads(path.read_text())
    evaluation["per_label"][0]["name"] = NASTY
    evaluation["confusions"]["pairs"].insert(
        0, {"present": NASTY, "predicted": NASTY, "documents": 1}
    )
    evaluation["errors"]["wrong"].insert(
        0, {"label": NASTY, "score": 0.5, "labels": [NASTY], "text": NASTY, "id": NASTY}
    )
    evaluation["slices"].append(evaluation["slices"][0] | {"by": NASTY, "name": NASTY})
    path.write_text(json.dumps(evaluation))
    return root


@pytest.fixture(scope="module")
def page(root) -> Path:
    """The page of the first run, with the second beside it."""
    printed = succeed(
        "trainer.task", "report", "--run", "out/small/run", "--compare", "out/other", cwd=root
    )
    assert "wrote out/small/run/report/index.html and 8 plots" in printed
    return root / "out/small/run/report/index.html"


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


def test_numbers_are_those_of_the_evaluation_and_the_manifest(root, page):
    text = page.read_text(encoding="utf-8")
    evaluation = json.loads((root / "out/small/run/evaluation-test.json").read_text())
    for system in evaluation["systems"]:
        row = re.search(rf'<td class="name">{re.escape(system["name"])}</td>(.*?)</tr>', text)[1]
        cells = re.findall(r"<td>(?:<b>)?([^<]*)", row)
        assert cells[:3] == [
            f"{system[key]:.3f}" for key in ("micro_f1", "macro_f1", "macro_f1_present")
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
    for system in evaluation["systems"]:
        for key in ("precision_at", "recall_at", "ndcg_at", "propensity_scored_precision_at"):
            if key in system:
                system[key] = {"2": 0.625, "10": 0.5}
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
        ({"run_dir": "nowhere", "model_dir": None}, "nowhere is no directory"),
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
        ({"run_dir": "broken", "model_dir": None}, "cannot read broken/evaluation-test.json"),
        ({"run_dir": "old", "model_dir": None}, "is of an older version"),
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


# --- in a browser ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    """The page, opened from disk."""
    if not (Path(CHROMIUM).exists() and Path(DRIVER).exists()):
        skip_without("chromium", f"expected {CHROMIUM} and {DRIVER}")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    profile = tmp_path_factory.mktemp("browser")
    for argument in (
        *(
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
        ),
        *(
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            f"--user-data-dir={profile}",
            "--window-size=1280,900",
        ),
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        driver.get(page.as_uri())
        yield driver
    finally:
        driver.quit()


def column(browser, title):
    titles = [header.text for header in browser.find_elements(By.CSS_SELECTOR, "#label-table th")]
    place = titles.index(title) + 1
    return [
        cell.text
        for cell in browser.find_elements(
            By.CSS_SELECTOR, f"#label-table tbody td:nth-child({place})"
        )
    ]


def press(browser, title):
    next(
        button
        for button in browser.find_elements(By.CSS_SELECTOR, "#label-table th button")
        if button.text == title
    ).click()


def test_the_page_fetches_nothing_and_reports_no_error(browser, page):
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    ours = {
        request["request"]["url"] for request in requests if request["documentURL"] == page.as_uri()
    }  # the browser has pages of its own
    assert {url for url in ours if not url.startswith("data:")} == {page.as_uri()}
    assert (
        browser.execute_script(
            "return performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length"
        )
        == 0
    )
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_labels_sort_by_every_column_both_ways(browser):
    assert browser.find_element(By.CSS_SELECTOR, "th[aria-sort=descending]").text == "train"
    for title in ("F1", "positives", "threshold"):
        press(browser, title)
        falling = [float(value.replace(",", "")) for value in column(browser, title)]
        assert falling == sorted(falling, reverse=True) and len(falling) == 5
        press(browser, title)
        assert [float(value.replace(",", "")) for value in column(browser, title)] == sorted(
            falling
        )
        assert browser.find_element(By.CSS_SELECTOR, "th[aria-sort=ascending]").text == title
    press(browser, "label")
    assert column(browser, "label") == sorted(column(browser, "label"))


def test_labels_are_filtered_by_name_group_and_positives(browser):
    name, least = (
        browser.find_element(By.ID, "label-name"),
        browser.find_element(By.ID, "label-least"),
    )
    name.send_keys("MUS")
    assert column(browser, "label") == ["music"]
    assert browser.find_element(By.ID, "label-status").text == "1 of 1 labels"
    name.clear()
    name.send_keys(" ")
    assert len(column(browser, "label")) == 5
    groups = set(column(browser, "group"))
    for group in groups:
        browser.find_element(By.CSS_SELECTOR, f"#label-group option[value={group}]").click()
        assert set(column(browser, "group")) == {group}
    browser.find_element(By.CSS_SELECTOR, "#label-group option[value='']").click()
    counts = sorted(int(value) for value in column(browser, "positives"))
    least.clear()
    least.send_keys(str(counts[-1]))
    assert [int(value) for value in column(browser, "positives")] == [
        value for value in counts if value >= counts[-1]
    ]
    least.clear()
    least.send_keys("0")


def test_html_in_labels_and_texts_is_shown_as_text(browser):
    assert NASTY in column(browser, "label")
    assert browser.title == "small: evaluation"
    assert NASTY in browser.find_element(By.CSS_SELECTOR, "#errors .errors p").text


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_page(browser, width):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert (
        browser.execute_script(
            "return document.querySelector('figure svg').getBoundingClientRect().width"
        )
        > 250
    )
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
