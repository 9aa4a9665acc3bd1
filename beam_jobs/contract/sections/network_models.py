"""The section `model`: neural networks over tokens, which are trained from the start."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from beam_jobs.contract.validation import Path_, Section


class _Network(Section):
    name: str  # each kind has its own; it is here to be the first key
    embedding_dim: int = Field(128, ge=1, description="size of a token's embedding")
    dropout: float = Field(
        0.1, ge=0, lt=1, description="fraction of the units dropped while training"
    )
    pretrained_vectors: Path_ | None = Field(
        None,
        description=(
            "GloVe or word2vec text file that the tokens' embeddings start from; its size is "
            "embedding_dim"
        ),
    )
    freeze_pretrained_vectors: bool = Field(
        False,
        description="embeddings from the file stay as they are; those of other tokens are learned",
    )


class _BagModel(_Network):
    token_weights: Literal["tfidf", "uniform"] = Field(
        "tfidf",
        description="weight of a token in the sum; the weights of a document have L2 norm 1",
    )
    bigram_buckets: int = Field(
        0, ge=0, description="hashed embeddings for pairs of neighbouring tokens; 0: no pairs"
    )


class _BowModel(_BagModel):
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="fraction of the document vector's units dropped while training",
    )
    bigram_dim: int | None = Field(
        None,
        ge=1,
        description=(
            "size of the embedding of a pair, at most embedding_dim: a table of its own, several "
            "times as fast; null: pairs are terms like tokens, in one table"
        ),
    )

    @pydantic.model_validator(mode="after")
    def _pairs_fit(self):
        if self.bigram_dim is None:
            return self
        if not self.bigram_buckets:
            raise ValueError(
                f"bigram_dim: received {self.bigram_dim} without pairs, "
                "expected bigram_buckets above 0 with it"
            )
        if self.bigram_dim > self.embedding_dim:
            raise ValueError(
                f"bigram_dim: received {self.bigram_dim}, "
                f"expected at most embedding_dim, {self.embedding_dim}"
            )
        return self


class BowConfig(_BowModel):
    """Bag of embeddings: the sum of the tokens' embeddings, then one dense layer."""

    name: Literal["bow"] = Field("bow", description="the architecture")
    wide: bool = Field(
        False, description="add a linear model: a weight for each token or pair and each label"
    )


class BowTreeConfig(_BowModel):
    """`bow` for 20,000 labels and more: a label tree decides which labels are scored."""

    name: Literal["bow_tree"] = Field(description="the architecture")
    head_labels: int = Field(
        1024,
        ge=0,
        description="the most frequent labels, which are always scored; the others are in the tree",
    )
    cluster_labels: int = Field(
        16, ge=1, description="labels of a cluster, at most; there are a power of two of clusters"
    )
    beam: int = Field(
        16,
        ge=1,
        description="clusters of each document whose labels are scored: those that score highest",
    )
    output_devices: int = Field(
        1,
        ge=1,
        description=(
            "devices of one process that the weights of the clusters' labels are divided over: "
            "GPUs from 0 on, or logical CPUs; for one replica"
        ),
    )


class MlpConfig(_BagModel):
    """Bag of embeddings, then hidden layers."""

    name: Literal["mlp"] = Field(description="the architecture")
    hidden_units: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (256,), min_length=1, description="units of each hidden layer"
    )


class SequenceModel(_Network):
    """Models that read tokens in their order."""

    max_tokens: int | None = Field(
        512, ge=1, description="tokens of a document that are read, from its start; null: all"
    )


class CnnConfig(SequenceModel):
    """Convolutions of several widths, and each filter's maximum over the document (Kim 2014)."""

    name: Literal["cnn"] = Field(description="the architecture")
    filter_widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (3, 4, 5), min_length=1, description="tokens that the filters span"
    )
    filters: int = Field(128, ge=1, description="filters of each width")


class LstmConfig(SequenceModel):
    """LSTM layers over the tokens, read forwards or both ways."""

    name: Literal["lstm"] = Field(description="the architecture")
    units: int = Field(128, ge=1, description="units of each layer and direction")
    layers: int = Field(1, ge=1, description="layers, one on the other")
    bidirectional: bool = Field(True, description="read both ways")
    pooling: Literal["max", "last"] = Field(
        "max", description="the document's vector: each unit's highest state, or its last one"
    )
    spatial_dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="fraction of whole channels dropped before each layer while training",
    )


class LabelAttentionModel(SequenceModel):
    """Models with a label-wise attention over a convolution of the tokens."""

    filter_width: int = Field(10, ge=1, description="tokens that a filter spans")
    filters: int = Field(128, ge=1, description="number of filters")


class CnnLwanConfig(LabelAttentionModel):
    """A convolution, then label-wise attention over the document (CAML, Mullenbach et al. 2018)."""

    name: Literal["cnn_lwan"] = Field(description="the architecture")


class BowLwanConfig(BowConfig, LabelAttentionModel):
    """`bow`, plus a label-wise attention for the labels that it scores highest."""

    name: Literal["bow_lwan"] = Field(description="the architecture")
    dropout: float = Field(
        0.2,
        ge=0,
        lt=1,
        description=(
            "fraction of the units of the document vector, and of the embeddings that the "
            "convolution reads, dropped while training"
        ),
    )
    candidates: int = Field(
        64,
        ge=1,
        description=(
            "labels of each document that the attention scores: those with the highest scores of "
            "the bag"
        ),
    )
    max_tokens: int | None = Field(
        200,
        ge=1,
        description="tokens of a document that the convolution reads, from its start; null: all",
    )
    filter_width: int = Field(3, ge=1, description="tokens that a filter spans")
    convolution_dim: int | None = Field(
        None,
        ge=1,
        description="size of the embeddings that the convolution reads; null: embedding_dim",
    )

    @pydantic.model_validator(mode="after")
    def _vectors_fit_both_tables(self):
        if self.pretrained_vectors is not None and self.convolution_dim not in (
            None,
            self.embedding_dim,
        ):
            raise ValueError(
                "expected convolution_dim: null or embedding_dim with pretrained_vectors, not "
                f"{self.convolution_dim} and {self.embedding_dim}: the vectors start both tables"
            )
        return self


class TransformerConfig(SequenceModel):
    """Pre-norm transformer encoder, mean over tokens (Vaswani et al. 2017, Xiong et al. 2020)."""

    name: Literal["transformer"] = Field(description="the architecture")
    max_tokens: int = Field(
        256, ge=1, description="tokens of a document that are read, from its start"
    )
    layers: int = Field(2, ge=1, description="encoder layers")
    heads: int = Field(4, ge=1, description="attention heads; they divide embedding_dim")
    feed_forward_dim: int = Field(
        512, ge=1, description="units between the two dense layers of each encoder layer"
    )
    positions: Literal["sinusoidal", "learned"] = Field(
        "sinusoidal", description="how the positions of tokens are encoded"
    )

    @pydantic.model_validator(mode="after")
    def _heads_share_the_embedding(self):
        if self.embedding_dim % self.heads:
            raise ValueError(
                f"expected heads that divide embedding_dim, not {self.heads} and "
                f"{self.embedding_dim}"
            )
        return self
