#!/usr/bin/env python3
"""How good and how fast our models are beside other multi-label classifiers, on any dataset.

All systems get the same analyzed texts and the same splits, each runs in a process of its own, and
one code measures them. Thresholds are tuned on the validation split, one for all labels and one
per label; micro-F1, macro-F1 over labels that occur, P@1/3/5, nDCG@5 and PSP@5 follow from the
scores, of which the 500 best of each document are kept. Costs are seconds from analyzed text to
scores, by stage; processor seconds of all cores; the peak memory of the system's largest process;
the size of the files that serving needs; the median time of a document that is scored alone.

The table is printed. --output receives peers.md, peers.json and peers.png (micro-F1 over seconds).
Systems that cannot be installed are skipped, with the reason in the table.

  python scripts/benchmark_peers.py out/docstrings/dataset --output out/peers/docstrings
  python scripts/benchmark_peers.py out/docstrings/dataset --output out/peers/docstrings \\
      --systems svc,pecos,ours --config configs/docstrings.yaml --repeat 3
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import numpy as np  # noqa: E402
import scipy.sparse  # noqa: E402
from peers import exchange, tables  # noqa: E402
from peers.environment import Unavailable, python_with  # noqa: E402
from peers.systems import PEERS  # noqa: E402

from beam_jobs.contract import manifest as manifests  # noqa: E402
from beam_jobs.contract.command_line import run_main  # noqa: E402
from beam_jobs.contract.config import Config, config_from_dict, load_config  # noqa: E402
from beam_jobs.contract.errors import UserError  # noqa: E402
from beam_jobs.contract.quiet import import_tensorflow_quietly  # noqa: E402

OURS = "ours"


def main(argv: list[str]) -> None:
    arguments = _parser().parse_args(argv)
    names = [name.strip() for name in arguments.systems.split(",")]
    if unknown := [name for name in names if name not in (*PEERS, OURS)]:
        raise UserError(
            f"--systems: received {unknown[0]!r}, expected some of {', '.join((*PEERS, OURS))}"
        )
    manifest = manifests.load(arguments.dataset)
    for split in {"train", "validation", arguments.split}:
        if not manifest.splits[split].examples:
            raise UserError(
                f"the dataset {arguments.dataset} has no {split} documents; look at `splits`"
            )
    configs = _configs(arguments, manifest, defaults=OURS in names)
    names = [name for name in names if name != OURS] + list(configs)
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.output, prefix="work-") as work:
        results = _run_all(arguments, names, configs, Path(work))
    print(tables.write(arguments.output, results), end="")
    print(f"\ntable, JSON and plot in {arguments.output}")
    systems = results["systems"].values()
    if any((system["skipped"] or "").startswith("failed") for system in systems):
        sys.exit(1)


def _configs(arguments, manifest, *, defaults: bool) -> dict[str, Config]:
    """Configs of ours by the system's name, all on the dataset that is measured."""
    dataset_dir = str(arguments.dataset.absolute())
    configs = {}
    if defaults:
        output = manifest.config["output"] | {"dataset_dir": dataset_dir}
        configs[OURS] = config_from_dict(
            manifest.config | {"output": output}, what=f"the config of {arguments.dataset}"
        )
    for file in arguments.config:
        overrides = [f"output.dataset_dir={json.dumps(dataset_dir)}"]
        config = load_config(file, overrides=overrides)
        manifests.check_same_dataset(manifest, config.dataset_config(), arguments.dataset)
        configs[f"{OURS}_{Path(file).stem}"] = config
    return configs


def _run_all(arguments, names: list[str], configs: dict[str, Config], work: Path) -> dict[str, Any]:
    """Runs the systems one after the other, all of them once before any of them again."""
    import_tensorflow_quietly()
    from peers.quality import Meter

    from trainer.data.dataset import Dataset

    dataset = Dataset(arguments.dataset, manifests.load(arguments.dataset))
    labels = {}
    for split in {"train", "validation", arguments.split}:
        documents = _read(dataset, split)
        exchange.write_split(work, split, documents)
        labels[split] = documents.labels
    meter = Meter(
        dataset,
        split=arguments.split,
        labels=labels,
        config=Config.model_fields["evaluate"].default,
    )
    results: dict[str, Any] = {
        "dataset": dataset.manifest.name,
        "split": arguments.split,
        "train_documents": dataset.num_examples("train"),
        "documents": dataset.num_examples(arguments.split),
        "labels": dataset.num_labels,
        "systems": {},
    }
    for name in names:
        title = PEERS[name].title if name in PEERS else f"{name}, {configs[name].model.name}"
        if name == "fasttext_autotune":
            title += f" of {arguments.autotune_seconds} s"
        results["systems"][name] = {"title": title, "runs": [], "skipped": None}
    for repeat in range(arguments.repeat):
        for name in names:
            system = results["systems"][name]
            if system["skipped"]:
                continue
            print(f"{name}, run {repeat + 1} of {arguments.repeat}", file=sys.stderr, flush=True)
            directory = work / f"{name}-{repeat}"
            directory.mkdir()
            try:
                costs = _run(arguments, name, configs.get(name), directory, seed=repeat)
            except Unavailable as error:
                system["skipped"] = f"cannot be installed: {error}"
            except RuntimeError as error:
                system["skipped"] = f"failed: {str(error).strip().splitlines()[-1]}"
                print(error, file=sys.stderr)
            if system["skipped"]:
                print(f"  {system['skipped']}", file=sys.stderr, flush=True)
                continue
            quality = meter.measure(directory)
            system["runs"].append({"seed": repeat} | quality | costs)
            micro, seconds = quality["one_threshold"]["micro_f1"], tables.total_seconds(costs)
            print(f"  micro-F1 {micro:.3f}, {seconds:,.1f} s", file=sys.stderr, flush=True)
            _put_away(directory, arguments)
            tables.write(arguments.output, results)  # what is known if it is stopped
    return results


def _put_away(directory: Path, arguments: argparse.Namespace) -> None:
    """Deletes the files of a run, or keeps them in the output with --keep."""
    if arguments.keep:
        kept = arguments.output / directory.name
        shutil.rmtree(kept, ignore_errors=True)
        directory.rename(kept)
    else:
        shutil.rmtree(directory)


def _read(dataset, split: str) -> exchange.Split:
    from trainer.data.records import read_records

    names, rows, ids, lengths = dataset.record_spec.text_names, [], [], [np.zeros(1, np.int64)]
    for batch in read_records(dataset, split, [*names, "labels"]):
        fields = zip(*(batch[name] for name in names), strict=True)
        rows += [b"\t".join(field).decode() for field in fields]
        ids.append(batch["labels"].values.numpy())
        lengths.append(batch["labels"].row_lengths().numpy())
    columns = np.concatenate(ids)
    matrix = scipy.sparse.csr_matrix(
        (np.ones(len(columns), np.float32), columns, np.cumsum(np.concatenate(lengths))),
        shape=(len(rows), dataset.num_labels),
    )
    return exchange.Split(rows, matrix)


def _run(arguments, name: str, config: Config | None, directory: Path, *, seed: int) -> dict:
    """One run of a system in a new process: what `peers.worker.run` returns."""
    python, options = sys.executable, {}
    if config is not None:
        # A config of the user's is used where it is, for code of the user's beside it.
        files = {f"{OURS}_{Path(file).stem}": Path(file) for file in arguments.config}
        file = files.get(name, directory / "config.yaml")
        if name not in files:
            file.write_text(config.to_yaml(), encoding="utf-8")
        options |= {"config": str(file), "dataset_dir": str(arguments.dataset.absolute())}
    else:
        package = PEERS[name].package
        options |= PEERS[name].options
        if name == "fasttext_autotune":
            options["autotune_seconds"] = arguments.autotune_seconds
        if package:
            python = python_with(package, arguments.peers_env, base_python=arguments.peers_python)
    job = {
        "name": name,
        "options": options,
        "seed": seed,
        "texts": str(directory.parent),
        "directory": str(directory.absolute()),
        "split": arguments.split,
    }
    (directory / "job.json").write_text(json.dumps(job))
    path = os.pathsep.join([str(ROOT / "scripts"), str(ROOT)])
    result = subprocess.run(
        [python, "-m", "peers.worker", str(directory / "job.json")],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(f"{name} ended with status {result.returncode}:\n{result.stderr}")
    return json.loads((directory / "result.json").read_text())


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


_positive.__name__ = "positive number"  # as argparse's message names it


def _parser() -> argparse.ArgumentParser:
    epilog = "systems:\n" + "".join(f"  {name:<18} {PEERS[name].title}\n" for name in PEERS)
    epilog += f"  {OURS:<18} our own model with the defaults, on top of the dataset's config\n"
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "dataset", type=Path, help="a dataset directory, such as out/docstrings/dataset"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="where results are written"
    )
    parser.add_argument(
        "--systems",
        default=",".join((*PEERS, OURS)),
        metavar="A,B,C",
        help="what to measure; default: all systems below",
    )
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="FILE",
        help="also measure our model with this config, made for the same dataset; may be repeated",
    )
    parser.add_argument(
        "--split",
        choices=["validation", "test"],
        default="validation",
        help="what is measured; choose settings on validation, test is for the last look "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--repeat",
        type=_positive,
        default=1,
        metavar="N",
        help="runs of each system, interleaved, with seeds 0 to N-1; medians are printed",
    )
    _add_peer_arguments(parser)
    parser.add_argument(
        "--keep", action="store_true", help="keep models, scores and runs in --output"
    )
    return parser


def _add_peer_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--autotune-seconds",
        type=_positive,
        default=300,
        metavar="S",
        help="the time that fastText's autotune gets (default: %(default)s)",
    )
    parser.add_argument(
        "--peers-env",
        type=Path,
        default=Path("out/peers-env"),
        metavar="DIR",
        help="virtual environment of the peers that need an older NumPy, made where it is missing "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--peers-python",
        default=sys.executable,
        metavar="FILE",
        help="the Python that it is made with, 3.10 or 3.11 (default: this one)",
    )


if __name__ == "__main__":
    run_main(main)
