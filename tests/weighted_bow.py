"""A small bag of embeddings whose weights are far from those that it starts with."""

import numpy as np

from trainer.models import VocabularyStatistics, build_model

VOCABULARY = ["goal", "team", "song", "soup", "moon", "rocket", "bread"]
LABELS = ["sport", "<music>", "food"]


def bow(config, **statistics):
    """The model of the config, a `BowConfig`."""
    model = build_model(
        config,
        vocabulary=VocabularyStatistics(
            size=len(VOCABULARY),
            document_counts=np.arange(1, 8),
            num_documents=9,
            tokens=VOCABULARY,
            **statistics,
        ),
        num_labels=len(LABELS),
        output_bias=np.array([0.5, -1.0, -2.0], np.float32),
        seed=3,
    )
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(variable + random.normal(size=variable.shape))
    return model
