"""MkDocs hooks: what the code knows better than a page is written when the site is built.

A page may hold these lines of its own:
  <!-- config keys -->          every key of a config, a table for each kind of a section
  <!-- help: MODULE ARGS -->    what `python -m MODULE ARGS --help` prints
  <!-- file: NAME -->           a Markdown file of the repository's root
  <!-- pages -->                links to the other pages of the folder
  <!-- notebook: NAME -->       a notebook of docs/notebooks, with what its cells printed
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from beam_jobs.contract.config import Config  # noqa: E402
from beam_jobs.contract.validation import (  # noqa: E402
    KeyDescription,
    SectionDescription,
    sections_of,
)

_CONFIG_KEYS = "<!-- config keys -->"
_HELP = re.compile(r"<!-- help: (.+?) -->")
_FILE = re.compile(r"<!-- file: (\S+) -->")
_PAGES = "<!-- pages -->"
_NOTEBOOK = re.compile(r"<!-- notebook: (\w+) -->")
_STYLE = re.compile(r"<style.*?</style>\n?", re.DOTALL)  # pandas has one for each table
_KINDS = ("source", "method", "name")  # the keys that say which kind a section is


def on_page_markdown(markdown: str, page, **_) -> str:
    if _PAGES in markdown:
        markdown = markdown.replace(_PAGES, pages_beside(Path(page.file.abs_src_path)))
    if _CONFIG_KEYS in markdown:
        markdown = markdown.replace(_CONFIG_KEYS, config_reference())
    markdown = _FILE.sub(lambda match: root_file(match[1]), markdown)
    markdown = _NOTEBOOK.sub(lambda match: notebook(match[1]), markdown)
    return _HELP.sub(lambda match: help_of(match[1].split()), markdown)


def config_reference() -> str:
    """All keys as Markdown: a heading for each section, below it a table for each kind of it."""
    entries = sections_of(Config)
    lines: list[str] = _table([e for e in entries if isinstance(e, KeyDescription)])
    seen = None
    for entry in (e for e in entries if isinstance(e, SectionDescription)):
        if entry.name != seen:
            lines += [f"## `{entry.name}`", ""]
            seen = entry.name
        if kind := _kind(entry):
            lines += [f"### `{entry.name}.{kind.name}: {kind.type.strip(chr(39))}`", ""]
        lines += [entry.purpose, "", *_table(entry.keys)]
    return "\n".join(lines)


def _kind(section: SectionDescription) -> KeyDescription | None:
    """The key whose only value tells this kind of a section from the others."""
    fixed = (key for key in section.keys if key.name in _KINDS)
    return next((key for key in fixed if re.fullmatch(r"'\w+'", key.type)), None)


def _table(keys) -> list[str]:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key in keys:
        default = key.default if key.default == "required" else f"`{_cell(key.default)}`"
        cells = (f"`{key.name}`", _cell(key.type), default, _cell(key.meaning))
        rows.append(f"| {' | '.join(cells)} |")
    return [*rows, ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def root_file(name: str) -> str:
    """A file of the repository's root, whose links into docs/ become links between pages."""
    return (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")


def notebook(name: str) -> str:
    """The cells of a notebook as Markdown: text, code, and the code's outputs."""
    path = ROOT / f"docs/notebooks/{name}.ipynb"
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source.replace("](../", "]("))
            continue
        parts.append(f"```python\n{source}\n```")
        printed = "".join("".join(output.get("text", "")) for output in cell["outputs"])
        results = [output["data"] for output in cell["outputs"] if "data" in output]
        texts = [printed, *("".join(result.get("text/plain", "")) for result in results)]
        tables = [_STYLE.sub("", "".join(result.get("text/html", ""))) for result in results]
        for text, html in zip(texts, ["", *tables], strict=True):
            if html.startswith(("<table", "<div>")):
                parts.append(html)
            elif text.strip():
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts)


def pages_beside(index: Path) -> str:
    """A list of links to the other pages of a folder, by their titles."""
    links = []
    for path in sorted(index.parent.glob("*.md")):
        if path != index:
            title = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
            links.append(f"- [{title}]({path.name})")
    return "\n".join(links)


def help_of(command: list[str]) -> str:
    """What `--help` of a command prints, as a code block.

    Raises:
      RuntimeError: the command fails.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "96", "NO_COLOR": "1"}
    result = subprocess.run(
        [sys.executable, "-m", *command, "--help"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(f"{command}: status {result.returncode}\n{result.stderr}")
    return f"```text\n{result.stdout.rstrip()}\n```"
