"""Packages of multihot's names that are not its own are recognised, and so is who did it."""

import sys
from pathlib import Path

import pytest

from multihot import ownership


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """The one directory of packages; those that the tests have loaded do not count."""
    for name in ownership.PACKAGES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    finders = [finder for finder in sys.meta_path if "editable" not in str(finder)]
    monkeypatch.setattr(sys, "meta_path", finders)
    return tmp_path


def write_package(site: Path, name: str, text: str) -> None:
    (site / name).mkdir()
    (site / name / "__init__.py").write_text(text)


def write_distribution(site: Path, name: str, *files: str) -> None:
    info = site / f"{name}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def test_the_packages_of_the_checkout_are_in_place():
    ownership.check()


def test_a_package_that_was_overwritten_names_the_distribution_and_the_remedy(site):
    write_package(site, "trainer", '"""A trainer of speech."""\n')
    write_distribution(site, "coqui-tts-trainer", "trainer/__init__.py")
    write_distribution(site, "multihot", "trainer/__init__.py")
    problem = ownership.problem_of("trainer", site)
    assert "trainer/__init__.py is another package's: the installed package coqui-tts" in problem
    assert "`pip uninstall -y coqui-tts-trainer && pip install --force-reinstall" in problem


def test_a_package_whose_files_another_one_took_along_says_to_install_again(site):
    (site / "trainer").mkdir()
    problem = ownership.problem_of("trainer", site)
    assert "trainer/__init__.py is missing" in problem and "was installed and removed" in problem


def test_a_folder_that_comes_first_is_named(site, tmp_path):
    write_package(site, "trainer", '"""The trainer of a sample."""\n')
    problem = ownership.problem_of("trainer", tmp_path / "elsewhere")
    assert f"Python finds another one first: {site / 'trainer'}. Rename that folder" in problem


def test_the_first_use_of_a_name_raises_the_problem(site, monkeypatch):
    import multihot

    monkeypatch.setattr(ownership, "_sound", False)
    monkeypatch.delitem(vars(multihot), "Document", raising=False)
    write_package(site, "beam_jobs", "")
    with pytest.raises(ImportError, match="multihot needs its own package `beam_jobs`"):
        multihot.Document  # noqa: B018
