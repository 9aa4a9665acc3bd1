"""What the pages say of the code and of each other is so; tests/system builds the site itself."""

import ast
import re
from pathlib import Path

import pytest

from beam_jobs.contract.config import REMOVED_VALUES, RENAMED_KEYS

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_of_pages_outside_the_site_lead_somewhere(name):
    for link in re.findall(r"\]\(([^)#\s]+)", read(name)):
        assert link.startswith("http") or (ROOT / link).exists(), link


def test_the_readme_is_read_in_a_few_minutes():
    assert len(read("README.md").splitlines()) <= 130


def test_the_tests_that_guard_private_interfaces_are_there():
    page = read("docs/private_interfaces.md")
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", page):
        assert f"def {name}(" in tests, name
    for path in re.findall(r"`((?:unit|integration|system)/[\w/]+\.py)`", page):
        assert (ROOT / "tests" / path).exists(), path


def test_the_tests_that_hold_silent_errors_are_there():
    page = read("docs/experiments/silent_errors.md")
    named = re.findall(r"`((?:unit|integration|system)/[\w/]+\.py)::(test_\w+)`", page)
    assert len(named) > 60
    for path, name in named:
        assert f"def {name}(" in read(f"tests/{path}"), name


def test_every_snippet_is_shown_by_a_marker_that_the_site_understands():
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    shown = set(re.findall(r'^ *--8<-- "([\w./]+)"$', pages, flags=re.MULTILINE))
    snippets = {path.name for path in (ROOT / "docs/snippets").iterdir() if path.is_file()}
    assert snippets and snippets <= shown
    assert not re.search(r"^ *--8 < --", pages, flags=re.MULTILINE)


def test_private_interfaces_are_used_where_the_page_says():
    rows = [line.split(" | ") for line in read("docs/private_interfaces.md").splitlines()]
    checked = 0
    for what, where, *_ in (row for row in rows if len(row) == 4 and "`" in row[1]):
        for path in re.findall(r"`((?:beam_jobs|trainer)/[\w/]+\.py)`", where):
            names = [name.rpartition(".")[2] for name in re.findall(r"`([^`]+)`", what)]
            assert not names or any(name in read(path) for name in names), (what, path)
            checked += 1
    assert checked >= 10


@pytest.mark.parametrize(
    "page", ["docs/architecture.md", "docs/private_interfaces.md", "CONTRIBUTING.md"]
)
def test_the_files_that_a_page_names_are_there(page):
    names = re.findall(r"`((?:beam_jobs|trainer|scripts|configs|docs|tests)/[\w./]+)`", read(page))
    new = ("xml", "my_model")  # the examples of CONTRIBUTING
    for name in names:
        found = (ROOT / name).exists() or (ROOT / f"{name}.py").exists()
        assert found or any(word in name for word in new), name


def test_the_changelog_has_every_key_that_has_another_name():
    page = read("CHANGELOG.md")
    for old, new in RENAMED_KEYS.items():
        assert f"| `{old}` | `{new}` |" in page
    for key, value in REMOVED_VALUES:
        assert f"`{key}: {value}`" in page


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_head_of_a_config_says_data_command_score_and_time(path):
    text = path.read_text(encoding="utf-8")
    head = text.partition("\nname:")[0]
    assert "../" not in text
    assert re.search(r"micro-F1 0\.\d{3}", head)
    assert re.search(r"(minute|second)s?\b", head)
    assert "multihot-preprocess --config configs/" in head or "quickstart.sh" in head
    reads_data = "[data/" in text
    assert reads_data == ("python scripts/get_data.py" in head)


def messages() -> str:
    """Every string of the code, a line each; what an f-string fills in is left out."""
    texts = []
    for folder in ("beam_jobs", "trainer"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                parts = node.values if isinstance(node, ast.JoinedStr) else [node]
                constants = (part.value for part in parts if isinstance(part, ast.Constant))
                texts.append("\0".join(text for text in constants if isinstance(text, str)))
    return "\n".join(texts)


def test_the_errors_that_troubleshooting_explains_are_those_of_the_code():
    known = messages()
    quotes = re.findall(r"\*\*`([^`]+)`", read("docs/troubleshooting.md"))
    assert len(quotes) > 15
    for quote in quotes:
        if quote.startswith("Op type"):  # TensorFlow's own
            continue
        # What the message fills in: names in quotes, numbers, paths, flags, addresses, keys.
        filled = r"'[^']*'|[\d,]*\d(?:\.\d+)?|\S+[/=]\S+|\S+:\d+|\.\.\.|\b[a-z_]+\.[a-z_]+"
        parts = re.split(filled, quote)
        longest = max((part.strip(" :;,.") for part in parts), key=len)
        assert any(piece in known for piece in (longest, longest.partition("; ")[0])), quote
