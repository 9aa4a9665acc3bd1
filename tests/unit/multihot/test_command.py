"""The command `multihot`: its commands, the doctor, and the quickstart's config."""

import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from beam_jobs.contract.errors import UserError
from multihot import command, doctor, ownership, quickstart
from trainer import task

ROOT = Path(__file__).parents[3]


def test_every_command_of_the_trainer_is_one_and_each_prints_its_help(capsys):
    of_trainer = {name for name, c in command.COMMANDS.items() if c.module == "trainer.task"}
    assert of_trainer == set(task.COMMANDS)
    for name in command.COMMANDS:
        with pytest.raises(SystemExit) as ended:
            command.main([name, "--help"])
        assert ended.value.code == 0
        assert capsys.readouterr().out.startswith("usage: multihot")


def test_help_lists_the_commands_and_a_wrong_one_gets_a_guess(capsys):
    command.main([])
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in command.COMMANDS)
    command.main(["--version"])
    assert capsys.readouterr().out.startswith("multihot 0.")
    with pytest.raises(UserError, match="received the command 'trian', .*: try train"):
        command.main(["trian"])


def test_every_command_but_those_about_multihot_is_a_console_script():
    setup = (ROOT / "setup.py").read_text()
    scripts = set(re.findall(r'"multihot-([a-z-]+)=multihot\.command:run"', setup))
    assert command.COMMANDS.keys() - scripts == {"quickstart", "doctor", "completion"}
    assert scripts <= command.COMMANDS.keys() and '"multihot=multihot.command:run"' in setup


@pytest.mark.parametrize(
    ("program", "arguments", "expected"),
    [
        ("/bin/multihot", ["train", "--fresh"], ["train", "--fresh"]),
        ("/bin/multihot-bulk-predict", ["--help"], ["bulk-predict", "--help"]),
    ],
)
def test_a_script_of_one_command_is_known_by_its_name(monkeypatch, program, arguments, expected):
    received = []
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    monkeypatch.setattr(command, "main", received.append)
    command.run()
    assert received == [expected]


def test_a_package_that_was_replaced_ends_every_command_with_its_message(monkeypatch, capsys):
    def check():
        raise ownership.ReplacedPackage("another package is here")

    monkeypatch.setattr(ownership, "check", check)
    with pytest.raises(SystemExit) as ended:
        command.run()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: another package is here\n"


def test_the_quickstart_writes_the_config_of_the_checkout_once(tmp_path):
    path = tmp_path / "docstrings.yaml"
    quickstart.write_config(path)
    assert path.read_bytes() == (ROOT / "configs/docstrings.yaml").read_bytes()
    path.write_text("mine")
    quickstart.write_config(path)
    assert path.read_text() == "mine"
    with pytest.raises(UserError, match="cannot write .* directory that you may write to"):
        quickstart.write_config(tmp_path / "docstrings.yaml" / "x")


# --- doctor ------------------------------------------------------------------------------


def test_a_package_that_is_missing_or_of_another_version_is_wrong_and_says_what_to_install():
    versions = {"old": "1.9", "new": "2.1rc1"}

    def installed(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    findings = [
        doctor.check_requirement(Requirement(text), installed)
        for text in ("old>=2", "new>=2,<3", "none>=1")
    ]
    assert [finding.is_good for finding in findings] == [False, True, False]
    assert str(findings[0]).split() == "WRONG old 1.9, expected >=2: pip install 'old>=2'".split()
    assert findings[2].text == "missing: pip install 'none>=1'"


def test_the_doctor_knows_every_extra():
    setup = (ROOT / "setup.py").read_text().partition("extras_require=")[2]
    extras = set(re.findall(r'^        "(\w+)": \[', setup.partition("\n    }")[0], re.MULTILINE))
    assert set(doctor.EXTRAS) | doctor._WORKING_EXTRAS == extras


def test_something_wrong_is_counted_and_is_the_exit_status(monkeypatch, capsys):
    wrong = doctor.Finding("keras", False, "missing")
    for name in ("_packages", "_devices", "_machine", "_extras"):
        monkeypatch.setattr(doctor, name, lambda: iter([wrong]))
    with pytest.raises(SystemExit) as ended:
        doctor.main([])
    assert ended.value.code == 1 and capsys.readouterr().out.endswith("\n4 wrong\n")


@pytest.mark.parametrize(
    ("file", "limit", "expected"),
    [
        (None, "", 8.0),
        ("memory.max", "max", 8.0),
        ("memory.max", "2000000000", 2.0),
        ("memory/memory.limit_in_bytes", "9223372036854771712", 8.0),
    ],
)
def test_the_memory_of_a_container_is_its_limit(tmp_path, file, limit, expected):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 7812500 kB\nMemFree: 1 kB\n")
    if file:
        path = tmp_path / "sys/fs/cgroup" / file
        path.parent.mkdir(parents=True)
        path.write_text(limit + "\n")
    assert doctor.memory_gb(tmp_path) == expected
