"""`multihot.preprocess`: documents in files or in memory -> a dataset."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from beam_jobs.contract.config import Config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import MANIFEST
from beam_jobs.contract.quiet import no_beam_warnings
from multihot import tables
from multihot.calls import on_disk, python_call
from multihot.dataset import Dataset
from multihot.settings import Settings, config_with

DOCUMENTS = "documents.parquet"  # in the experiment's folder: the table that was given
_PREPROCESS = "from beam_jobs.preprocess import run; run()"
_SHOWN_CHARACTERS = 4000  # of what a failed process wrote


def preprocess(
    source: Any,
    *,
    text: str | Sequence[str] | None = None,
    labels: str | Sequence[str] | None = None,
    name: str = "documents",
    output_dir: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    force: bool = False,
    verbose: bool = True,
    settings: Settings | None = None,
    **sections: Settings,
) -> Dataset:
    """Makes a dataset: cleans and tokenises text, merges duplicates, splits, counts, writes.

    A dataset that the same config and input have made is not made again.

    Args:
      source: the path of a config, a `Config` or a mapping of its sections; or documents: a pandas
        or polars DataFrame, a `datasets.Dataset`, a pyarrow Table, a mapping of columns, or a
        mapping of the splits `train`, `validation` and `test` to such tables. Documents are written
        to a Parquet file in `output_dir` first.
      text: of documents: the column with the text, or several, which become one text.
      labels: of documents: the column with a list of labels, or of their ids; or several columns,
        each of which holds 0 or 1 for the label of its name. Of strings with joined labels, the
        setting `data.label_delimiter` says what is between them.
      name: of the experiment that documents become: lower-case letters, digits and _.
      output_dir: the experiment's folder, with the dataset, runs and models; default: out/NAME of
        documents, and what the config says.
      overwrite: replace a dataset that was made with another config or input.
      force: make the dataset again even if the same config and input made the one there.
      verbose: print what is done, and how far it is.
      settings: other keys of the config, such as `{"labels.min_count": 5}`.
      **sections: the same by section, such as `vocabulary={"size": 20_000}`.

    Returns:
      The dataset.

    Raises:
      UserError: the config or the documents are wrong, or too many documents are rejected.

    In a notebook the Beam job runs in a process of its own: with IPython, Apache Beam 2.77 imports
    parts that pandas 3 breaks.
    """
    with python_call(verbose=verbose, tensorflow=False):
        beside = ""
        if tables.is_table(source) or tables.are_tables(source) or text is not None:
            place = on_disk(output_dir or f"out/{name}", what="output_dir")
            config = _config_of_table(source, text, labels, name, place, [settings, sections])
            is_new = overwrite or not (Path(config.output.dataset_dir) / MANIFEST).exists()
            tables.write(tables.to_arrow(source), place / DOCUMENTS, replace=is_new)
        else:
            if labels is not None:
                raise UserError("labels: received without text, expected the columns of both")
            config = config_with(source, settings, sections, _directories(output_dir))
            beside = str(Path(source).resolve().parent) if isinstance(source, str | Path) else ""
        run = _in_own_process if "IPython" in sys.modules else _in_this_process
        run(config, beside, overwrite=overwrite, force=force)
        return Dataset(config.output.dataset_dir, config=config)


def _directories(output_dir: Any) -> dict[str, str]:
    if output_dir is None:
        return {}
    keys = {"dataset": "output.dataset_dir", "run": "train.run_dir", "model": "export.model_dir"}
    return {key: os.path.join(output_dir, leaf) for leaf, key in keys.items()}


def _config_of_table(
    source: Any,
    text: str | Sequence[str] | None,
    labels: str | Sequence[str] | None,
    name: str,
    place: Path,
    settings: list[Settings | None],
) -> Config:
    """The config of documents in memory, which are read from a file in `place`."""
    if text is None:
        raise UserError(
            "text: received None, expected the column with the text, or a list of columns"
        )
    table = tables.to_arrow(source)
    data: dict[str, Any] = {"source": "parquet", "inputs": [str(place / DOCUMENTS)]}
    data["text_fields"] = [text] if isinstance(text, str) else list(text)
    tables.check_columns(table, data["text_fields"], "text")
    if isinstance(labels, str):
        tables.check_columns(table, [labels], "labels")
        data["labels_field"] = labels
        if tables.holds_ids(table, labels):
            data["label_format"] = "ids"  # whose names are in the schema of a `datasets.Dataset`
    elif labels is not None:
        data |= {"labels_field": None, "label_columns": list(labels)}
        tables.check_columns(table, data["label_columns"], "labels")
    elif "labels" not in table.column_names:
        tables.check_columns(table, ["labels"], "labels")
    raw = {"name": name, "data": data}
    if tables.are_tables(source):
        data["split_field"] = tables.SPLIT_FIELD
        raw["splits"] = {"method": "column"}
    return config_with(raw, _directories(place), *settings)


def _in_this_process(config: Config, _beside: str, *, overwrite: bool, force: bool) -> None:
    with no_beam_warnings():
        from beam_jobs.preprocessing import job
    job.preprocess(config, beam_arguments=[], overwrite=overwrite, force=force)


def _in_own_process(config: Config, beside: str, *, overwrite: bool, force: bool) -> None:
    """Runs the command `preprocess` and prints what it prints.

    Modules are found there as they are here; those of the user's own, beside the config too.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*map(_absolute, sys.path), beside])}
    flags = ["--overwrite"] * overwrite + ["--force"] * force
    with (
        tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
    ):
        file.write(config.to_yaml())
        file.flush()
        command = [sys.executable, "-c", _PREPROCESS, "--config", file.name, *flags]
        with subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            errors="replace",
        ) as process:
            try:
                for line in process.stdout or ():
                    print(line, end="", flush=True)
            except BaseException:
                process.terminate()
                raise
        errors.seek(0)
        _check_ended(process.returncode, errors.read())


def _check_ended(status: int, stderr: str) -> None:
    """Raises what the process has ended with, unless it is done."""
    if status == 0:
        return
    _, separator, message = f"\n{stderr}".rpartition("\nerror: ")
    if separator:
        raise UserError(message.rstrip("\n"))
    raise RuntimeError(
        f"the preprocessing process has ended with status {status}:\n{stderr[-_SHOWN_CHARACTERS:]}"
    )


def _absolute(path: str) -> str:
    return os.path.abspath(path)
