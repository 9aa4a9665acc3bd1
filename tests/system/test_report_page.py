"""A report made in a process of its own, and its page used in a browser."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.command_lines import ROOT, skip_without
from tests.reported_runs import NASTY, make_page, make_reported

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"


@pytest.fixture(scope="module")
def root(trained, tmp_path_factory) -> Path:
    """Two runs; the first has a label, a text and an id that hold HTML."""
    return make_reported(trained, tmp_path_factory.mktemp("report") / "root")


@pytest.fixture(scope="module")
def page(root) -> Path:
    """The page of the first run, compared with the second."""
    return make_page(root)


def test_a_report_loads_no_tensorflow_and_no_scikit_learn(root, tmp_path):
    """Which takes seconds, for a page that shows what is in files."""
    code = (
        "import sys; from trainer.task import main; "
        f"main(['report', '--run', 'out/small/run', '--output', {str(tmp_path)!r}]); "
        "loaded = {'tensorflow', 'keras', 'sklearn', 'apache_beam'} & set(sys.modules); "
        "sys.exit(str(loaded) if loaded else 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "index.html").is_file()


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
    index = titles.index(title) + 1
    return [
        cell.text
        for cell in browser.find_elements(
            By.CSS_SELECTOR, f"#label-table tbody td:nth-child({index})"
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
            "return performance.getEntriesByType('resource')"
            ".filter(e => !e.name.startsWith('data:')).length"
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
