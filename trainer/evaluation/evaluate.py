"""The evaluation of a trained model: thresholds and calibration from the validation split, numbers beside baselines."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from beam_jobs.contract.config import Config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import dump_json
from trainer.data.input_pipeline import Batch, delete_in_background, evaluation_batches
from trainer.data.shards import naming_corrupt_shards, plan_split
from trainer.distribution.strategy import is_chief, num_workers, sum_over_workers, worker_index
from trainer.evaluation import error_analysis, slices
from trainer.evaluation.baselines import check_fits, linear_baseline
from trainer.evaluation.text_report import classification_report, format_evaluation
from trainer.experiment import Experiment, assemble, restore_best
from trainer.files import write_atomically
from trainer.losses import losses
from trainer.metrics import bootstrap, classification, ranking, score_histograms
from trainer.metrics.calibration import Calibration, fit
from trainer.metrics.thresholds import MOST_LABELS, Thresholds, expected_f1_decisions, label_errors, tune

# What an evaluation leaves in the run directory. Calibration and thresholds belong together: thresholds are those of calibrated scores.
THRESHOLDS = "thresholds.json"
CALIBRATION = "calibration.npz"

ONE_THRESHOLD = "model, one threshold"
LABEL_THRESHOLDS = "model, a threshold per label"
TOP_K = "model, k best labels"
EXPECTED_F1 = "model, best expected F1"
NO_LABELS = "baseline: no labels"
FREQUENT_LABELS = "baseline: most frequent labels"

_CURVE_POINTS = 128

# A nested dict of tensors or of NumPy arrays.
Counts = dict[str, Any]


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
        self._num_bins = classification.histogram_bins(self._num_labels)
        self._log_odds_bins = score_histograms.log_odds_bins(self._num_labels)
        # Training calls it after every epoch, so it is traced once.
        self._histogram_step = self._compile(lambda labels, scores, mask, _: {"histogram": self._histogram(labels, scores, mask)})

    def histogram(self, split: str) -> np.ndarray:
        """int64 [2, labels, bins + 1]: `trainer.metrics.classification.score_histogram` of the whole split, before calibration."""
        empty = np.zeros((2, self._num_labels, self._num_bins + 1), np.int64)
        return self._sum(self._histogram_step, split, {"histogram": empty})["histogram"]

    def log_odds_histogram(self, split: str) -> np.ndarray:
        """int64 [2, labels, bins]: `trainer.metrics.score_histograms.log_odds_histogram` of the whole split, before calibration."""

        def count(batch: Batch) -> Counts:
            log_odds = self._experiment.log_odds(self._experiment.model(batch["tokens"], training=False))
            return {"histogram": self._log_odds_histogram(classification.multi_hot(batch["labels"], self._num_labels), log_odds, batch["mask"])}

        empty = np.zeros((2, self._num_labels, self._log_odds_bins), np.int64)
        return self._sum(self._distribute(count), split, {"histogram": empty})["histogram"]

    def tuning_counts(self, split: str, calibration: Calibration) -> Counts:
        """What thresholds are tuned on: histogram, as above but of calibrated scores, and hits, see `trainer.metrics.thresholds.tune`."""
        ranks, even = tuple(range(1, MOST_LABELS + 1)), np.ones(self._num_labels)

        def count(labels, scores, mask, _):
            best = ranking.ranking_counts(labels, scores, mask, ranks=ranks, label_propensities=even)
            return {"histogram": self._histogram(labels, scores, mask), "hits": best["hits"]}

        empty = {"histogram": np.zeros((2, self._num_labels, self._num_bins + 1), np.int64), "hits": np.zeros(MOST_LABELS, np.int64)}
        return self._sum(self._compile(count, calibration), split, empty)

    def measure(self, split: str, thresholds: Thresholds, calibration: Calibration, *, chosen: np.ndarray) -> Counts:
        """Everything that an evaluation tells of a split; its documents are read once.

        Args:
          split: the split.
          thresholds: of the calibrated scores.
          calibration: what calibrates the model's log-odds.
          chosen: the labels whose confusions are counted, see `trainer.evaluation.error_analysis.confusion_labels`.

        Returns:
          systems: by name of the system, `trainer.metrics.classification.decision_counts`; rankings: by name, the counts of `trainer.metrics.ranking`; histogram;
          log_odds: [2, labels, bins] of calibrated log-odds; uncalibrated and raw: [2, bins], all labels together, before the calibration
          and before what the loss's weighting does is undone; slices; bootstrap: by name; confusions; errors: `trainer.evaluation.error_analysis.surest`.
        """
        experiment, config = self._experiment, self._experiment.config.evaluate
        train_positives = experiment.dataset.positives("train")
        frequent, frequency = _most_frequent(train_positives, experiment.dataset.examples("train"))
        propensities = ranking.propensities(train_positives, experiment.dataset.examples("train"), a=config.propensity_a, b=config.propensity_b)
        slicing, replicates = slices.slicing_of(experiment.dataset, split), config.bootstrap_replicates
        with_labels = bootstrap.has_macro(self._num_labels, replicates=2 * replicates)

        def annotate(parsed):
            keys = bootstrap.document_key(parsed["id"])
            weights = bootstrap.resample(keys, replicates=replicates, seed=experiment.config.train.seed) if replicates else None
            return {"keys": keys, "slices": slicing.metadata_slices(parsed)} | ({"resampled": weights} if replicates else {})

        def count(batch: Batch) -> Counts:
            labels, mask = classification.multi_hot(batch["labels"], self._num_labels), batch["mask"]
            logits = experiment.model(batch["tokens"], training=False)
            uncalibrated = experiment.log_odds(logits)
            log_odds = calibration.log_odds(uncalibrated)
            scores = tf.sigmoid(log_odds)

            def constant(row):
                return tf.broadcast_to(row, tf.shape(scores))

            def ranked(of):
                return ranking.ranking_counts(labels, of, mask, ranks=config.ranks, label_propensities=propensities)

            decisions = {
                ONE_THRESHOLD: classification.decide(scores, thresholds.global_bin),
                LABEL_THRESHOLDS: classification.decide(scores, thresholds.per_label_bins),
                TOP_K: ranking.top_k_decisions(scores, thresholds.top_k),
                EXPECTED_F1: expected_f1_decisions(scores),
                NO_LABELS: constant(np.zeros(self._num_labels, bool)),
                FREQUENT_LABELS: constant(frequent),
            }
            members = slicing.members(batch["tokens"], batch["slices"])
            sums = {
                "systems": {name: classification.decision_counts(labels, decided, mask) for name, decided in decisions.items()},
                "rankings": {
                    "model": ranked(scores) | ranking.full_ranking_counts(labels, scores, mask),
                    FREQUENT_LABELS: ranked(constant(frequency)),
                },
                "histogram": self._histogram(labels, scores, mask),
                "log_odds": self._log_odds_histogram(labels, log_odds, mask),
                "uncalibrated": tf.reduce_sum(self._log_odds_histogram(labels, uncalibrated, mask), axis=1),
                "raw": tf.reduce_sum(self._log_odds_histogram(labels, logits, mask), axis=1),
                "slices": slices.slice_counts(labels, decisions[LABEL_THRESHOLDS], members, mask),
                "confusions": error_analysis.confusion_counts(labels, scores, decisions[LABEL_THRESHOLDS], mask, chosen=chosen),
            }
            if replicates:
                sums["bootstrap"] = {
                    name: bootstrap.resampled_counts(labels, decisions[name], batch["resampled"], mask, with_labels=with_labels)
                    for name in (ONE_THRESHOLD, LABEL_THRESHOLDS)
                }
            errors = error_analysis.confident_errors(labels, scores, decisions[LABEL_THRESHOLDS], mask, batch["keys"])
            return {"sums": sums, "errors": errors}

        total, errors = None, []
        for part in self._results(self._distribute(count), split, annotate):
            total = part["sums"] if total is None else tf.nest.map_structure(np.add, total, part["sums"])
            errors = [error_analysis.surest([*errors, part["errors"]])]
        workers, worker = num_workers(self._strategy), worker_index(self._strategy)
        # Each worker's errors in a place of its own: the sum then holds those of all.
        apart = {name: np.stack([values * (i == worker) for i in range(workers)]) for name, values in errors[0].items()}
        gathered = sum_over_workers(self._strategy, apart)
        every = error_analysis.surest([{name: values[i] for name, values in gathered.items()} for i in range(workers)])
        return sum_over_workers(self._strategy, total) | {"errors": every, "slicing": slicing}

    def _histogram(self, labels, scores, mask) -> tf.Tensor:
        return classification.score_histogram(labels, scores, mask, num_bins=self._num_bins)

    def _log_odds_histogram(self, labels, log_odds, mask) -> tf.Tensor:
        return score_histograms.log_odds_histogram(labels, log_odds, mask, num_bins=self._log_odds_bins)

    def _compile(self, count: Callable[..., Counts], calibration: Calibration | None = None):
        """A step that counts (labels, calibrated scores, mask, batch) of each replica."""

        def of_batch(batch: Batch) -> Counts:
            log_odds = self._experiment.log_odds(self._experiment.model(batch["tokens"], training=False))
            scores = tf.sigmoid(calibration.log_odds(log_odds) if calibration else log_odds)
            return count(classification.multi_hot(batch["labels"], self._num_labels), scores, batch["mask"], batch)

        return self._distribute(of_batch)

    def _distribute(self, count: Callable[[Batch], Counts]):
        return tf.function(lambda iterator: self._strategy.run(count, args=(next(iterator),)))

    def _results(self, step, split: str, annotate=None) -> Iterator[Counts]:
        """What every step counts on every replica of this worker, as NumPy arrays."""
        dataset, strategy = self._experiment.dataset, self._strategy
        plan = plan_split(dataset, split, num_workers=num_workers(strategy), global_batch_size=self._batch_size)
        batches = evaluation_batches(
            dataset, split, self._experiment.vectorizer, strategy, global_batch_size=self._batch_size, plan=plan, annotate=annotate
        )
        iterators = [iter(batches)]
        with naming_corrupt_shards(dataset, split):
            for _ in range(plan.steps):
                result = tf.nest.map_structure(strategy.experimental_local_results, step(iterators[0]))
                flat = [[value.numpy() for value in replicas] for replicas in _leaves(result)]
                for values in zip(*flat, strict=True):
                    yield _with_leaves(result, iter(values))
        delete_in_background(iterators)

    def _sum(self, step, split: str, total: Counts) -> Counts:
        """Adds up the counts of all replicas of all workers; what they send each other is one sum at the end."""
        for part in self._results(step, split):
            total = tf.nest.map_structure(np.add, total, part)
        return sum_over_workers(self._strategy, total)


def _leaves(counts: Counts) -> Iterator[Any]:
    for value in counts.values():
        yield from _leaves(value) if isinstance(value, dict) else (value,)


def _with_leaves(counts: Counts, values: Iterator[Any]) -> Counts:
    return {name: _with_leaves(value, values) if isinstance(value, dict) else next(values) for name, value in counts.items()}


# --- what is saved ---------------------------------------------------------------------


def evaluate(config: Config, *, baseline: str | None = None) -> None:
    """Tunes on the validation split, evaluates it and the test split beside baselines, writes what it finds and prints the last.

    Args:
      config: the experiment.
      baseline: "linear" to fit `trainer.evaluation.baselines.linear_baseline` too.

    Raises:
      UserError: there is no trained model, no document to evaluate on, or too many for the baseline.
    """
    experiment = assemble(config)
    restore_best(experiment)
    dataset = experiment.dataset
    splits = [split for split in ("validation", "test") if dataset.examples(split)]
    if not splits:
        raise UserError(f"the dataset {dataset.directory} has neither validation nor test documents; look at `splits`")
    if baseline:
        check_fits(dataset)
    evaluator = Evaluator(experiment)
    thresholds, calibration, errors = _tune(experiment, evaluator)
    chosen = error_analysis.confusion_labels(errors, dataset.positives("train"))
    counts = {split: evaluator.measure(split, thresholds, calibration, chosen=chosen) for split in splits}
    if not is_chief(experiment.strategy):
        return
    more_systems = linear_baseline(dataset, splits, config=experiment.config.evaluate) if baseline else {}
    calibration.save(experiment.run_dir / CALIBRATION)
    write_atomically(experiment.run_dir / THRESHOLDS, dump_json(thresholds.to_json()))
    for split in splits:
        evaluation = _describe(experiment, split, thresholds, calibration, counts[split], chosen=chosen, more_systems=more_systems.get(split, {}))
        text = format_evaluation(evaluation)
        write_atomically(evaluation_path(experiment.run_dir, split), dump_json(evaluation))
        write_atomically(experiment.run_dir / f"evaluation-{split}.txt", text)
        write_atomically(experiment.run_dir / f"evaluation-{split}-labels.txt", classification_report(evaluation))
    print(text)
    print(f"evaluations of {' and '.join(splits)} in {experiment.run_dir}; a page of them: python -m trainer.task report --run {experiment.run_dir}")


def evaluation_path(run_dir: Path, split: str) -> Path:
    """Where `evaluate` writes the evaluation of a split, as JSON."""
    return run_dir / f"evaluation-{split}.json"


def _tune(experiment: Experiment, evaluator: Evaluator) -> tuple[Thresholds, Calibration, np.ndarray]:
    """The thresholds and the calibration that are best on the validation split, and each label's errors there."""
    config = experiment.config.evaluate
    if config.calibration == "none":
        calibration = Calibration.none(experiment.dataset.num_labels)
    else:
        calibration = fit(config.calibration, evaluator.log_odds_histogram("validation"), min_positives=config.min_positives)
    counts = evaluator.tuning_counts("validation", calibration)
    thresholds = tune(counts["histogram"], min_positives=config.min_positives, hits=counts["hits"])
    return thresholds, calibration, label_errors(counts["histogram"], thresholds)


def load_thresholds(experiment: Experiment) -> Thresholds:
    """The thresholds that `evaluate` has written; they are those of scores calibrated by `load_calibration`.

    Raises:
      UserError: there are none, or they are not of this dataset.
    """
    path = experiment.run_dir / THRESHOLDS
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; expected the thresholds that `python -m trainer.task evaluate` writes: run it first") from None
    return Thresholds.from_json(raw, num_labels=experiment.dataset.num_labels, what=str(path))


def load_calibration(experiment: Experiment) -> Calibration:
    """The calibration that `evaluate` has written. Scores are sigmoid(calibration.log_odds(experiment.log_odds(logits))).

    Raises:
      UserError: there is none, or it is not of this dataset.
    """
    return Calibration.load(experiment.run_dir / CALIBRATION, num_labels=experiment.dataset.num_labels)


def _most_frequent(positives: np.ndarray, documents: int) -> tuple[np.ndarray, np.ndarray]:
    """(bool [labels]: as many of the most frequent labels as a document has on average; float32 [labels]: frequencies)."""
    count = max(1, round(positives.sum() / documents))
    chosen = np.zeros(len(positives), bool)
    chosen[np.argsort(-positives, kind="stable")[:count]] = True
    return chosen, (positives / documents).astype(np.float32)


# --- counts -> plain JSON values, see `trainer.evaluation.text_report` ----------------------------------


def _describe(
    experiment: Experiment,
    split: str,
    thresholds: Thresholds,
    calibration: Calibration,
    counts: Counts,
    *,
    chosen: np.ndarray,
    more_systems: Mapping[str, Counts],
) -> dict[str, Any]:
    config, dataset = experiment.config, experiment.dataset
    documents, train_positives = dataset.examples(split), dataset.positives("train")
    auc, auc_error = score_histograms.roc_auc(counts["log_odds"])
    precision, precision_error = score_histograms.average_precision(counts["log_odds"])
    groups = losses.label_groups(train_positives)
    per_label = _per_label(experiment, thresholds, counts, groups=groups, roc_auc=auc, average_precision=precision)
    return {
        "split": split,
        "documents": documents,
        "labels": dataset.num_labels,
        "thresholds": {
            "tuned_on": "validation",
            "documents": dataset.examples("validation"),
            "min_positives": config.evaluate.min_positives,
            "global": thresholds.global_threshold,
            "top_k": thresholds.top_k,
        },
        "systems": _systems(experiment, documents, counts, more_systems),
        "areas": {
            "macro_roc_auc": _mean_defined(auc),
            "macro_roc_auc_error": _mean_defined(auc_error),
            "mean_average_precision": _mean_defined(precision),
            "mean_average_precision_error": _mean_defined(precision_error),
        },
        "calibration": {
            "method": calibration.method,
            "stages": [
                {"name": name} | score_histograms.calibration(histogram)
                for name, histogram in (
                    ("the model's logits", counts["raw"]),
                    ("the loss's weighting undone", counts["uncalibrated"]),
                    *([(f"calibrated: {calibration.method}", counts["log_odds"].sum(axis=1))] if calibration.method != "none" else []),
                )
            ],
        },
        "sweep": _sweep(counts["histogram"]),
        "precision_recall": _precision_recall(counts["histogram"], groups),
        "groups": _groups(per_label, groups, tp=counts["systems"][LABEL_THRESHOLDS]["tp"]),
        "slices": slices.describe_slices(counts["slicing"], counts["slices"]),
        "confusions": error_analysis.describe_confusions(counts["confusions"], chosen=chosen, names=dataset.label_names, documents=documents),
        "errors": error_analysis.describe_errors(counts["errors"], dataset, split),
        "per_label": per_label,
    }


def _systems(experiment: Experiment, documents: int, counts: Counts, more_systems: Mapping[str, Counts]) -> list[dict[str, Any]]:
    ranks, rows = experiment.config.evaluate.ranks, []
    rankings = dict.fromkeys((ONE_THRESHOLD, LABEL_THRESHOLDS, TOP_K, EXPECTED_F1), counts["rankings"]["model"]) | {
        FREQUENT_LABELS: counts["rankings"][FREQUENT_LABELS]
    }
    for name, system in (counts["systems"] | more_systems).items():
        row = {"name": name} | classification.summarize(system)
        found = rankings.get(name, system if "hits" in system else None)
        if found is not None:
            row |= ranking.summarize_ranking(found, documents=documents, ranks=ranks)
        if name in counts.get("bootstrap", {}):
            row["intervals"] = bootstrap.intervals(counts["bootstrap"][name], num_labels=experiment.dataset.num_labels)
        rows.append(row)
    return rows


def _per_label(experiment: Experiment, thresholds: Thresholds, counts: Counts, *, groups, roc_auc, average_precision) -> list[dict[str, Any]]:
    dataset = experiment.dataset
    group_of = np.empty(dataset.num_labels, object)
    for name, ids in groups.items():
        group_of[ids] = name
    weights, _ = losses.label_weights(experiment.config.loss, **experiment.label_counts)
    columns = {
        "name": dataset.label_names,
        "group": group_of.tolist(),
        "train_positives": dataset.positives("train").tolist(),
        "loss_weight": weights.tolist(),
        "threshold": thresholds.per_label_thresholds,
        "roc_auc": _none_for_nan(roc_auc),
        "average_precision": _none_for_nan(average_precision),
        "ece": score_histograms.label_calibration_error(counts["log_odds"]).tolist(),
    }
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [row | more for row, more in zip(rows, classification.per_label(counts["systems"][LABEL_THRESHOLDS]), strict=True)]


def _none_for_nan(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else value for value in values.tolist()]


def _mean_defined(values: np.ndarray) -> float | None:
    """The mean of the values that are numbers; None of none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None


def _sweep(histogram: np.ndarray) -> dict[str, list[float]]:
    """Micro precision, recall and F1, and macro-F1, at even thresholds."""
    bins = histogram.shape[-1] - 1
    at = np.arange(0, bins + 1, max(1, bins // _CURVE_POINTS))
    micro = classification.sweep(histogram.sum(axis=1))
    macro = np.zeros(len(at))
    for label in range(histogram.shape[1]):
        macro += classification.sweep(histogram[:, label])["f1"][at] / histogram.shape[1]
    columns = {"threshold": at / bins} | {f"micro_{name}": values[at] for name, values in micro.items()} | {"macro_f1": macro}
    return {name: values.tolist() for name, values in columns.items()}


def _precision_recall(histogram: np.ndarray, groups: Mapping[str, np.ndarray]) -> dict[str, dict[str, list[float]]]:
    """Precision against recall of all labels together and of head, mid and tail labels together, at points of different recall."""
    found = {}
    for name, ids in {"all": np.arange(histogram.shape[1]), **groups}.items():
        part = histogram[:, ids].sum(axis=1)
        if part[1].sum():
            swept = classification.sweep(part)
            _, at = np.unique(np.floor(swept["recall"] * _CURVE_POINTS), return_index=True)
            # Where nothing is assigned any more there is no precision.
            at = at[(swept["recall"][at] > 0)]
            found[name] = {key: swept[key][at].tolist() for key in ("recall", "precision")}
    return found


def _groups(per_label: list[dict[str, Any]], groups: Mapping[str, np.ndarray], *, tp: np.ndarray) -> list[dict[str, Any]]:
    """Head, mid and tail labels: [{"name", "labels", "least", "most" (train positives), "positives", "micro_f1", "macro_f1", "without_hits"}]."""
    rows = []
    for name, ids in groups.items():
        own = [per_label[i] for i in ids]
        if not own:
            continue
        train, positives, predicted = (np.array([row[key] for row in own]) for key in ("train_positives", "positives", "predicted"))
        f1 = np.array([row["f1"] for row in own])
        rows.append(
            {
                "name": name,
                "labels": len(own),
                "least": int(train.min()),
                "most": int(train.max()),
                "positives": int(positives.sum()),
                "micro_f1": float(classification.ratio(2 * tp[ids].sum(), (positives + predicted).sum())),
                "macro_f1": float(f1.mean()),
                "without_hits": int((f1 == 0).sum()),
            }
        )
    return rows
