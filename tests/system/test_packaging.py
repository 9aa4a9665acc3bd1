"""The package is complete: the job runs from an installed sdist and wheel, far from the checkout.

The package is installed by pip, without its dependencies, in a new virtual environment; the
dependencies come from the tests' own environment, which a .pth file adds after it. So this shows
that nothing of ours is missing from the package; that the dependencies in setup.py suffice is shown
by the environments that scripts/quickstart.sh and scripts/test.sh make.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.runners.portability.stager import Stager

from beam_jobs.contract import manifest as manifests
from tests.command_lines import ROOT, skip_without, succeed
from tests.small_experiment import write_documents

PACKAGES = ("beam_jobs", "trainer", "multihot")
CONFIG = """\
name: tiny
data: {source: jsonl, inputs: [documents.jsonl], id_field: key}
output: {shards: 2}
"""


def pip(*arguments: object) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--quiet",
            "--disable-pip-version-check",
            *map(str, arguments),
        ],
        check=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> dict[str, Path]:
    """The sdist, built by the code that builds it for Dataflow's workers, and the wheel of it."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    folder = tmp_path_factory.mktemp("packages")
    sdist = Path(Stager._build_setup_package(str(checkout / "setup.py"), str(folder)))
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, sdist)
    return {"sdist": sdist, "wheel": next(folder.glob("*.whl"))}


@pytest.fixture(scope="module")
def environments(packages, tmp_path_factory) -> dict[str, Path]:
    """By package: the programs of a virtual environment in which it is installed."""
    return {
        name: install(package, tmp_path_factory.mktemp(name) / "environment")
        for name, package in packages.items()
    }


def install(package: Path, folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=120)
    site = Path(
        sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)})
    )
    # .pth files in there, such as of a checkout, do not count.
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    pip(
        "--python",
        folder / "bin/python",
        "install",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        package,
    )
    return folder / "bin"


def run(program: Path, *arguments: str, cwd: Path) -> str:
    """What a program prints, without anything of the tests' environment but its dependencies."""
    clean = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    clean["PATH"] = os.pathsep.join(
        (str(program.parent), os.environ["PATH"])
    )  # where Beam finds a bare `python`
    ended = subprocess.run(
        [program, *arguments],
        cwd=cwd,
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_sdist_and_wheel_hold_every_module_and_data_file(packages):
    tracked = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file()
    }
    expected = {name for name in tracked if "__pycache__" not in name}
    with tarfile.open(packages["sdist"]) as sdist, zipfile.ZipFile(packages["wheel"]) as wheel:
        in_sdist = {name.partition("/")[2] for name in sdist.getnames()}
        in_wheel = set(wheel.namelist())
    assert expected - in_sdist == set() and expected - in_wheel == set()
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE"} <= in_sdist
    assert not any(name.startswith(("tests", "scripts")) for name in in_wheel)


@pytest.mark.parametrize("package", ["sdist", "wheel"])
def test_the_installed_commands_and_modules_are_those_of_the_package(
    environments, tmp_path, package
):
    environment = environments[package]
    script = """
import importlib, json, sys
print(json.dumps([importlib.import_module(name).__file__ for name in sys.argv[1:]]))
"""
    modules = [
        "beam_jobs.preprocess",
        "beam_jobs.worker",
        "beam_jobs.contract.config",
        "trainer.task",
        "trainer.distribution.cluster",
        "multihot",
    ]
    files = json.loads(
        run(environment / "python", "-c", script, *modules, cwd=tmp_path).splitlines()[-1]
    )
    assert all(Path(file).is_relative_to(environment.parent) for file in files), files
    commands = {command.name for command in environment.glob("multihot-*")}
    assert {"multihot-worker", "multihot-train"} <= commands
    # The sdist's are the wheel's, which is made of it: of them, two are run.
    for command in commands if package == "wheel" else ("multihot-worker", "multihot-train"):
        assert "usage:" in run(environment / command, "--help", cwd=tmp_path)


def test_the_installed_quickstart_runs_in_any_folder(environments, tmp_path):
    small = ("data.packages=[json, email]", "labels.min_count=5", "train.epochs=1")
    settings = [part for setting in small for part in ("--set", setting)]
    printed = run(environments["wheel"] / "multihot", "quickstart", *settings, cwd=tmp_path)
    assert "== 5/5 predict" in printed and "multihot predict --model" in printed
    assert {path.name for path in tmp_path.iterdir()} == {"docstrings.yaml", "out"}
    assert (tmp_path / "out/docstrings/model/1/README.md").read_text().startswith("---\n")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> dict[str, bytes]:
    """The files of the dataset that the checkout makes."""
    home = make_home(tmp_path_factory.mktemp("checkout-run"))
    succeed("beam_jobs.preprocess", "--config", "config.yaml", cwd=home)
    return contents(home / "out/tiny/dataset")


def make_home(folder: Path) -> Path:
    write_documents(folder / "documents.jsonl", 600)
    (folder / "config.yaml").write_text(CONFIG)
    return folder


# By kind of worker: from which package, and Beam's options.
WORKERS = {
    "local": ("sdist", "--direct_running_mode=multi_processing", "--direct_num_workers=1"),
    "loopback": ("wheel", "--environment_type=LOOPBACK"),
    "process": ("wheel", "--environment_type=PROCESS", "--environment_config={worker}"),
}


@pytest.mark.parametrize("workers", WORKERS)
def test_the_installed_job_writes_the_same_bytes_with_workers_of_every_kind(
    environments, dataset, tmp_path, workers
):
    home = make_home(tmp_path)
    package, *options = WORKERS[workers]
    environment = environments[package]
    worker = json.dumps({"command": str(environment / "multihot-worker")})
    options = [option.format(worker=worker) for option in options]
    if workers != "local":
        options += ["--runner=PrismRunner", f"--prism_location={prism()}"]
    run(environment / "multihot-preprocess", "--config", "config.yaml", "--", *options, cwd=home)
    assert contents(home / "out/tiny/dataset") == dataset
    assert manifests.load(home / "out/tiny/dataset").counts.read == 600


def prism() -> Path:
    """The program that scripts/run_prism.sh builds where it is not there yet."""
    environment = os.environ | {"PYTHON": sys.executable}
    ended = subprocess.run(
        [ROOT / "scripts/run_prism.sh", "--help"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    if ended.returncode:
        skip_without("prism", ended.stderr.strip().splitlines()[-1])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / f"multihot/prism-{beam.__version__}"
