"""The documentation: it builds without a warning, fetches nothing, knows every key and command."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from beam_jobs.contract.config import Config
from beam_jobs.contract.validation import SectionDescription, sections_of

pytest.importorskip("mkdocs")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    if "MULTIHOT_SITE" in os.environ:  # scripts/test.sh has built it, as strictly
        return Path(os.environ["MULTIHOT_SITE"])
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return folder


def test_the_pages_fetch_nothing(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?:[^"]+)"', text)
        assert not fetched, page


def test_the_config_reference_has_every_key(site):
    page = (site / "config/index.html").read_text(encoding="utf-8")
    for section in sections_of(Config):
        keys = section.keys if isinstance(section, SectionDescription) else [section]
        missing = [key.name for key in keys if f"<code>{key.name}</code>" not in page]
        assert not missing, section.name


def test_the_command_reference_has_every_command(site):
    page = (site / "command_line/index.html").read_text(encoding="utf-8")
    commands = re.findall(r'"(multihot-[a-z-]+)=', (ROOT / "setup.py").read_text())
    assert commands
    shown = {command for command in commands if f'id="{command}"' in page}
    assert shown == set(commands) - {"multihot-worker"}  # which engines start, not people
