"""A small model of every architecture, and the vocabulary that it knows."""

import numpy as np

from trainer.models import VocabularyStatistics

VOCABULARY = VocabularyStatistics(
    size=40, document_counts=np.arange(40, 0, -1) + 1, num_documents=100
)


SMALL = {
    "bow": {"embedding_dim": 8, "bigram_buckets": 8, "wide": True},
    "mlp": {"embedding_dim": 8, "bigram_buckets": 8, "hidden_units": [6, 5]},
    "cnn": {"embedding_dim": 8, "filter_widths": [1, 3], "filters": 6},
    "lstm": {"embedding_dim": 8, "units": 6},
    "cnn_lwan": {"embedding_dim": 8, "filter_width": 4, "filters": 6},
    "bow_lwan": {"embedding_dim": 8, "bigram_buckets": 8, "filters": 6, "candidates": 2},
    "transformer": {"embedding_dim": 8, "layers": 1, "heads": 2, "feed_forward_dim": 12},
}
