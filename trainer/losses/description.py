"""A description of the loss and its weights, printed before training."""

from collections.abc import Sequence

import numpy as np

from beam_jobs.contract.sections.loss import DistributionBalancedConfig, LossConfig
from trainer.data.labels import label_groups
from trainer.losses.label_weights import label_weights
from trainer.losses.prior_correction import prior_correction


def describe_loss(
    config: LossConfig,
    *,
    positives: np.ndarray,
    num_documents: int,
    label_names: Sequence[str] = (),
) -> str:
    """A line on the loss, and one on its weights for each of head, mid and tail labels.

    See `trainer.data.labels.label_groups` for the groups.
    """
    positives = np.asarray(positives)
    weights = label_weights(
        config, positives=positives, num_documents=num_documents, label_names=label_names
    )
    correction = prior_correction(
        config, positives=positives, num_documents=num_documents, label_names=label_names
    )
    hidden = {"name"} if config.negatives == "sampled" else {"name", "negatives", "num_sampled"}
    options = ", ".join(
        f"{key} {value}"
        for key, value in config.model_dump().items()
        if key not in hidden and value is not None
    )
    rows = [f"loss {config.name} ({options})"]
    for group, ids in label_groups(positives).items():
        if not len(ids):
            continue
        fewest, most = positives[ids].min(), positives[ids].max()
        means = [f"{np.mean(w[ids]):.2f}" for w in weights]
        rows.append(
            f"  {group}: {len(ids):,} labels on {fewest:,} to {most:,} of {num_documents:,} "
            f"documents; mean weight of positives {means[0]}, "
            f"of negatives {means[1]}; logits to be shifted by {np.mean(correction[ids]):+.2f}"
        )
    if isinstance(config, DistributionBalancedConfig):
        ratios = np.array([0, 1])  # how rare the label is among the labels of its document
        lowest, highest = config.alpha + 1 / (1 + np.exp(-config.beta * (ratios - config.mu)))
        rows.append(
            f"  times {lowest:.2f} to {highest:.2f} by how rare the label is among the labels of "
            "its document"
        )
    return "\n".join(rows)
