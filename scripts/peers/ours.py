"""Our own model, by the command lines that a user runs, scored as it is served."""

import os
import subprocess
import sys
from pathlib import Path

from peers.systems import System


class Ours(System):
    """A config's model.

    Options: config, the YAML file; dataset_dir, the dataset.
    """

    def fit(self, train, validation, stage):
        with stage("train"):
            self._command("train")
        with stage("evaluate and export"):  # tunes thresholds and writes the SavedModel
            self._command("evaluate")
            self._command("export")
        from beam_jobs.contract import saved_model

        with stage("load"):
            self._model = saved_model.load(str(self.model_dir))

    def _command(self, name: str) -> None:
        settings = {
            "output.dataset_dir": self.options["dataset_dir"],
            "train.run_dir": self.directory / "run",
            "train.seed": self.seed,
            "export.model_dir": self.model_dir,
        }
        overrides = [part for key in settings for part in ("--set", f"{key}={settings[key]}")]
        root = Path(__file__).parents[2]
        result = subprocess.run(
            [
                *(sys.executable, "-m", "trainer.task", name),
                *("--config", self.options["config"], *overrides),
            ],
            env=os.environ | {"PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise RuntimeError(f"`{name}` ended with status {result.returncode}: {result.stderr}")

    def scores(self, rows):
        import tensorflow as tf

        texts = zip(*(row.split("\t") for row in rows), strict=True)
        # The texts are analyzed already, for all systems alike.
        return self._model.module.score_analyzed(*map(tf.constant, texts)).numpy()
