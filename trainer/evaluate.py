"""The evaluation of a trained model: thresholds from the validation split, numbers beside baselines."""

import json
from typing import Any

import numpy as np
import tensorflow as tf

from beam_jobs.contract.config import Config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import dump_json
from trainer import metrics
from trainer.experiment import Experiment, assemble, restore_best
from trainer.files import write_atomically
from trainer.input_pipeline import Batch, delete_in_background, evaluation_batches
from trainer.report import format_evaluation
from trainer.shards import naming_corrupt_shards, plan_split
from trainer.strategy import is_chief, num_workers, sum_over_workers
from trainer.thresholds import Thresholds, tune

THRESHOLDS = "thresholds.json"


class Evaluator:
    """Runs the model over a split and returns sums, exact over any number of replicas.

    Args:
      experiment: its model is used with the weights it has at each call.
    """

    def __init__(self, experiment: Experiment):
        self._experiment = experiment
        self._strategy = experiment.strategy
        self._num_labels = experiment.dataset.num_labels
        replicas = self._strategy.num_replicas_in_sync
        # Rounded up to a share for each replica; padding is masked, so the numbers do not change.
        self._batch_size = -(-experiment.config.evaluate.batch_size // replicas) * replicas
        self._histogram_step = tf.function(self._compile(lambda labels, scores, mask: {"histogram": metrics.score_histogram(labels, scores, mask)}))

    def histogram(self, split: str) -> np.ndarray:
        """int64 [2, labels, bins]: `trainer.metrics.score_histogram` of the whole split."""
        empty = np.zeros((2, self._num_labels, metrics.NUM_BINS + 1), np.int64)
        return self._sum(self._histogram_step, split, {"histogram": empty})["histogram"]

    def counts(self, split: str, thresholds: Thresholds) -> dict[str, dict[str, np.ndarray]]:
        """Decision and ranking counts of the model and of the baselines over the whole split, by name of the system."""
        ranks = self._experiment.config.evaluate.ranks
        train_positives = self._experiment.dataset.positives("train")
        frequent, frequency = _most_frequent(train_positives, self._experiment.dataset.examples("train"))

        def systems(labels, scores, mask):
            def constant(row):
                return tf.broadcast_to(row, tf.shape(scores))

            ranking = metrics.ranking_counts(labels, scores, mask, ranks=ranks)
            decisions = {
                "model, one threshold": metrics.decide(scores, thresholds.global_bin),
                "model, a threshold per label": metrics.decide(scores, thresholds.per_label_bins),
                "baseline: no labels": constant(np.zeros(self._num_labels, bool)),
                "baseline: most frequent labels": constant(frequent),
            }
            rankings = {
                "baseline: no labels": tf.nest.map_structure(tf.zeros_like, ranking),
                "baseline: most frequent labels": metrics.ranking_counts(labels, constant(frequency), mask, ranks=ranks),
            }
            return {name: metrics.decision_counts(labels, decided, mask) | rankings.get(name, ranking) for name, decided in decisions.items()}

        return self._sum(tf.function(self._compile(systems)), split, None)

    def _compile(self, count):
        def replica_step(batch: Batch):
            scores = self._experiment.scores(batch["tokens"])
            return count(metrics.multi_hot(batch["labels"], self._num_labels), scores, batch["mask"])

        def step(iterator):
            return self._strategy.run(replica_step, args=(next(iterator),))

        return step

    def _sum(self, step, split: str, total):
        """Adds up the counts of all replicas of all workers; what they send each other is one sum at the end."""
        dataset, strategy = self._experiment.dataset, self._strategy
        plan = plan_split(dataset, split, num_workers=num_workers(strategy), global_batch_size=self._batch_size)
        batches = evaluation_batches(dataset, split, self._experiment.vectorizer, strategy, global_batch_size=self._batch_size, plan=plan)
        iterators = [iter(batches)]
        with naming_corrupt_shards(dataset, split):
            for _ in range(plan.steps):
                result = tf.nest.map_structure(lambda value: sum(v.numpy() for v in strategy.experimental_local_results(value)), step(iterators[0]))
                total = result if total is None else tf.nest.map_structure(np.add, total, result)
        delete_in_background(iterators)
        return sum_over_workers(strategy, total)


def evaluate(config: Config) -> None:
    """Tunes thresholds on the validation split, evaluates every other split beside baselines, writes and prints both."""
    experiment = assemble(config)
    restore_best(experiment)
    dataset = experiment.dataset
    splits = [split for split in ("validation", "test") if dataset.examples(split)]
    if not splits:
        raise UserError(f"the dataset {dataset.directory} has neither validation nor test documents; look at `splits`")
    evaluator = Evaluator(experiment)
    thresholds = tune_thresholds(experiment, evaluator)
    counts = {split: evaluator.counts(split, thresholds) for split in splits}
    if not is_chief(experiment.strategy):
        return
    write_atomically(experiment.run_dir / THRESHOLDS, dump_json(thresholds.to_json()))
    for split in splits:
        evaluation = _describe(experiment, split, thresholds, counts[split])
        text = format_evaluation(evaluation)
        write_atomically(experiment.run_dir / f"evaluation-{split}.json", dump_json(evaluation))
        write_atomically(experiment.run_dir / f"evaluation-{split}.txt", text)
    print(text)
    print(f"evaluations of {' and '.join(splits)} in {experiment.run_dir}")


def tune_thresholds(experiment: Experiment, evaluator: Evaluator) -> Thresholds:
    """The thresholds that are best on the validation split."""
    return tune(evaluator.histogram("validation"), min_positives=experiment.config.evaluate.min_positives)


def load_thresholds(experiment: Experiment) -> Thresholds:
    """The thresholds that `evaluate` has written.

    Raises:
      UserError: there are none, or they are not of this dataset.
    """
    path = experiment.run_dir / THRESHOLDS
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; expected the thresholds that `python -m trainer.task evaluate` writes: run it first") from None
    return Thresholds.from_json(raw, num_labels=experiment.dataset.num_labels, what=str(path))


def _most_frequent(positives: np.ndarray, documents: int) -> tuple[np.ndarray, np.ndarray]:
    """(bool [labels]: as many of the most frequent labels as a document has on average; float32 [labels]: frequencies)."""
    count = max(1, round(positives.sum() / documents))
    chosen = np.zeros(len(positives), bool)
    chosen[np.argsort(-positives, kind="stable")[:count]] = True
    return chosen, (positives / documents).astype(np.float32)


def _describe(experiment: Experiment, split: str, thresholds: Thresholds, counts: dict[str, dict[str, np.ndarray]]) -> dict[str, Any]:
    ranks = experiment.config.evaluate.ranks
    dataset = experiment.dataset
    own = zip(dataset.labels, thresholds.per_label_thresholds, metrics.per_label(counts["model, a threshold per label"]), strict=True)
    return {
        "split": split,
        "documents": dataset.examples(split),
        "labels": dataset.num_labels,
        "thresholds": {
            "tuned_on": "validation",
            "documents": dataset.examples("validation"),
            "min_positives": experiment.config.evaluate.min_positives,
            "global": thresholds.global_threshold,
        },
        "systems": [{"name": name} | metrics.summarize(system, ranks=ranks) for name, system in counts.items()],
        "per_label": [
            {"name": label["name"], "train_positives": label["positives"]["train"], "threshold": threshold} | row for label, threshold, row in own
        ],
    }
