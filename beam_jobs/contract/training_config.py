"""The sections of the config that the trainer reads."""

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from beam_jobs.contract.validation import Directory, Fraction, Path_, Place, Section


class AutoConfig(Section):
    """The trainer chooses model, loss, optimizer and epochs by the sizes of the dataset."""

    name: Literal["auto"] = Field("auto", description="the architecture")


class _Model(Section):
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


class _BagModel(_Model):
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


class MlpConfig(_BagModel):
    """Bag of embeddings, then hidden layers."""

    name: Literal["mlp"] = Field(description="the architecture")
    hidden_units: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (256,), min_length=1, description="units of each hidden layer"
    )


class SequenceModel(_Model):
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


# What `train.objective` may be: metrics of one threshold for all labels.
Objective = Literal["micro_f1", "macro_f1"]
OBJECTIVE_TITLES: dict[Objective, str] = {"micro_f1": "micro-F1", "macro_f1": "macro-F1"}

LinearFeatureKind = Literal["auto", "words", "words_bigrams", "words_chars", "words_bigrams_chars"]


class LinearConfig(Section):
    """One-vs-rest linear classifiers over TF-IDF, fitted by liblinear (Fan et al. 2008)."""

    name: Literal["linear"] = Field(description="the architecture")
    features: LinearFeatureKind = Field(
        "auto",
        description=(
            "what has weights: tokens; with `bigrams` pairs of neighbouring tokens in at least two "
            "train documents; with `chars` 2 to 5 characters of a token; auto: what is best on "
            "validation"
        ),
    )
    loss: Literal["squared_hinge", "logistic"] = Field(
        "squared_hinge",
        description="the loss of each label's classifier, beside an L2 penalty; it takes the place "
        "of the section `loss`",
    )
    C: float | None = Field(
        None,
        gt=0,
        description="weight of the loss against the penalty; null: what is best on validation",
    )
    pos_weight: Literal["auto", "none", "fourth_root"] = Field(
        "auto",
        description=(
            "weight of a label's positives in its loss: 1, or the fourth root of negatives / "
            "positives; auto: what is better for train.objective, which is none for micro_f1"
        ),
    )
    min_weight: float = Field(
        0.05, ge=0, description="weights nearer to 0 are left out, which makes the model sparse"
    )

    def pos_weight_for(self, objective: Objective) -> Literal["none", "fourth_root"]:
        """What `pos_weight` comes to; the figures are in docs/experiments/objective.md."""
        if self.pos_weight == "auto":
            return "fourth_root" if objective == "macro_f1" else "none"
        return self.pos_weight


LoraTargets = Literal["query_value", "all"]


class PretrainedConfig(Section):
    """A pretrained encoder, one vector a document, and dense layers; needs KerasHub."""

    name: Literal["pretrained"] = Field(description="the architecture")
    backbone: Path_ | None = Field(
        None,
        description=(
            "directory of the encoder: Hugging Face's with safetensors, sentence-transformers', "
            "or a preset of KerasHub; or a name, as in text.tokenizer; null: that of "
            "text.tokenizer. Its tokenizer has to be that of the dataset"
        ),
    )
    trainable_layers: Annotated[int, Field(ge=0)] | Literal["all"] = Field(
        0,
        description=(
            "layers of the encoder that are trained, from its top: all: with the embeddings; 0: "
            "none, and then each document is encoded once, before the first epoch, unless pooling "
            "is label_attention"
        ),
    )
    lora_rank: int | None = Field(
        None,
        ge=1,
        description=(
            "in the layers that are trained, low-rank updates of this rank take the place of the "
            "weights (LoRA); the export has them added up; null: the weights themselves"
        ),
    )
    lora_targets: LoraTargets = Field(
        "query_value",
        description=(
            "the dense layers that have such updates: those of queries and values, or all six of "
            "a layer"
        ),
    )
    gradient_checkpointing: bool = Field(
        False,
        description=(
            "in training, of each layer that is trained its input alone is kept, and its "
            "activations are computed again: less memory, more time"
        ),
    )
    pooling: Literal["mean", "cls", "label_attention"] | None = Field(
        None,
        description=(
            "the document's vector: the mean of the encoder's states, or the first one; "
            "label_attention: each label has its own, by attention over the states; null: what a "
            "directory of sentence-transformers says, else mean"
        ),
    )
    max_tokens: int = Field(
        256,
        ge=3,
        description=("tokens of a document that are read, from its start, with the two around it"),
    )
    window: int | None = Field(
        None,
        ge=3,
        description=(
            "a document with more tokens is encoded in windows of so many, with the two around "
            "each; null: at once"
        ),
    )
    stride: int | None = Field(
        None,
        ge=1,
        description="tokens from the start of a window to that of the next; null: none overlap",
    )
    window_pooling: Literal["mean", "max"] = Field(
        "mean",
        description=(
            "the document's vector: the mean of its windows', by their lengths, or their maximum; "
            "label_attention is over the states of all windows"
        ),
    )
    hidden_units: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="units of each layer between the document's vector and the last layer"
    )
    dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="fraction of the units dropped before each layer on the encoder",
    )
    label_descriptions: Literal["names"] | Path_ | None = Field(
        None,
        description=(
            "the last layer starts from what the encoder makes of the labels' names, or of texts "
            "in a JSON file, {label: text}; labels without train documents then have scores too; "
            "null: it starts at random"
        ),
    )
    cache_dir: Directory | None = Field(
        None,
        description=(
            "where the vectors of an encoder that is not trained are kept; null: beside the "
            "dataset, in output.dataset_dir + .vectors"
        ),
    )

    @pydantic.model_validator(mode="after")
    def _attention_is_the_last_layer(self):
        if self.pooling == "label_attention" and self.hidden_units:
            raise ValueError(
                "expected no hidden_units with `pooling: label_attention`, which gives the logits "
                f"itself, not {list(self.hidden_units)}"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _windows_cover_the_document(self):
        if self.window is None:
            if self.stride is not None or self.window_pooling != "mean":
                raise ValueError("expected no stride and no window_pooling without window")
            return self
        if self.window >= self.max_tokens:
            raise ValueError(
                f"expected max_tokens above window, which no document is longer than otherwise: "
                f"received {self.max_tokens} and {self.window}"
            )
        if self.stride is not None and self.stride > self.window - 2:
            raise ValueError(
                f"received stride {self.stride}, which leaves tokens out; expected at most "
                f"window - 2 = {self.window - 2}"
            )
        if self.pooling == "label_attention" and self.window_pooling != "mean":
            raise ValueError("expected no window_pooling with `pooling: label_attention`")
        return self

    @pydantic.model_validator(mode="after")
    def _some_layer_is_trained(self):
        if self.trainable_layers == 0:
            for key in ("lora_rank", "gradient_checkpointing"):
                if getattr(self, key):
                    raise ValueError(
                        f"received {key} {str(getattr(self, key)).lower()}, and no layer is "
                        "trained; expected trainable_layers above 0, such as all"
                    )
        return self

    @property
    def encodes_once(self) -> bool:
        """Whether each document is encoded before the first epoch, and its vector kept."""
        return self.trainable_layers == 0 and self.pooling != "label_attention"


class _WithOptions(Section):
    model_config = pydantic.ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        """The keys that are not declared."""
        return dict(self.model_extra or {})


class CustomConfig(_WithOptions):
    """A model of your own; every other key is an option that its function receives."""

    name: Literal["custom"] = Field(description="the architecture")
    build: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="the function that builds it, as package.module:function",
    )


ModelConfig = Annotated[
    AutoConfig
    | BowConfig
    | MlpConfig
    | CnnConfig
    | LstmConfig
    | CnnLwanConfig
    | BowLwanConfig
    | BowTreeConfig
    | TransformerConfig
    | LinearConfig
    | PretrainedConfig
    | CustomConfig,
    Field(discriminator="name"),
]


class _Loss(Section):
    name: str  # as in _Model
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="the target of a label is moved towards 1/2 by this fraction"
    )
    negatives: Literal["all", "sampled"] = Field(
        "all",
        description=(
            "the labels that a document's loss is computed on: all, or its own and a sample of "
            "the others, in which frequent labels are more often; for 10,000 labels and more, "
            "whose output layer then trains only the rows drawn"
        ),
    )
    num_sampled: int = Field(
        2048, ge=1, description="labels drawn per step, where negatives are `sampled`"
    )


class WeightedBceConfig(_Loss):
    """Binary cross-entropy with weighted positives: sum over labels, mean over the global batch."""

    name: Literal["weighted_bce"] = Field("weighted_bce", description="the loss")
    pos_weight: Literal["none", "sqrt", "balanced", "effective_number", "file"] = Field(
        "sqrt",
        description=(
            "weight of a label's positives, from the train split: 1, sqrt(negatives / positives), "
            "negatives / positives, the ratio of their effective numbers, or read from "
            "pos_weight_file"
        ),
    )
    max_pos_weight: float = Field(
        20.0,
        ge=1,
        description="positive weights are clipped to [1, this]; those from a file are not",
    )
    effective_number_beta: float = Field(
        0.999,
        ge=0,
        lt=1,
        description="n documents count as (1 - beta^n) / (1 - beta) in effective_number",
    )
    pos_weight_file: Path_ | None = Field(
        None, description="JSON file, an object with the weight of each label by its name"
    )

    @pydantic.model_validator(mode="after")
    def _file_where_it_is_read(self):
        if (self.pos_weight == "file") != (self.pos_weight_file is not None):
            raise ValueError(
                "expected pos_weight_file with `pos_weight: file` only, not "
                f"{self.pos_weight_file!r} with {self.pos_weight!r}"
            )
        return self


class SquaredHingeConfig(_Loss):
    """Squared hinge, the loss of linear support vector machines (Fan et al. 2008, equation 3)."""

    name: Literal["squared_hinge"] = Field(description="the loss")
    margin: float = Field(
        4.0,
        gt=0,
        description=(
            "positives with a logit above this, and negatives with one below minus this, have no "
            "loss"
        ),
    )


class FocalConfig(_Loss):
    """Focal loss (Lin et al. 2017): labels that are predicted well weigh less."""

    name: Literal["focal"] = Field(description="the loss")
    gamma: float = Field(2.0, ge=0, description="focusing; 0: none")
    alpha: float | None = Field(
        0.25,
        gt=0,
        lt=1,
        description="weight of positives, and 1 - alpha of negatives; null: 1 for both",
    )


class AsymmetricConfig(_Loss):
    """Asymmetric loss (Ridnik et al. 2021): stronger focusing of negatives, none of the easiest."""

    name: Literal["asymmetric"] = Field(description="the loss")
    gamma_positive: float = Field(0.0, ge=0, description="focusing of positives")
    gamma_negative: float = Field(4.0, ge=0, description="focusing of negatives")
    probability_shift: float = Field(
        0.05, ge=0, lt=1, description="negatives with a probability up to this have no loss"
    )


class ClassBalancedConfig(_Loss):
    """Class-balanced loss (Cui et al. 2019): labels weighted by the inverse effective number."""

    name: Literal["class_balanced"] = Field(description="the loss")
    beta: float = Field(
        0.999, ge=0, lt=1, description="n documents count as (1 - beta^n) / (1 - beta)"
    )
    gamma: float = Field(0.0, ge=0, description="focusing as in focal loss; 0: none")


class DistributionBalancedConfig(_Loss):
    """Distribution-balanced loss (Wu et al. 2020, Huang et al. 2021).

    Labels are rebalanced by those they occur with, and negatives are tolerated.
    """

    name: Literal["distribution_balanced"] = Field(description="the loss")
    alpha: float = Field(
        0.1,
        ge=0,
        description=(
            "the smoothed weight of a label in a document is alpha + sigmoid(beta * (weight - mu))"
        ),
    )
    beta: float = Field(10.0, gt=0, description="slope of the smoothing")
    mu: float = Field(0.2, ge=0, le=1, description="centre of the smoothing")
    negative_scale: float = Field(
        2.0,
        ge=1,
        description=(
            "negatives' logits are multiplied, and their loss divided, by this; 1: no tolerance"
        ),
    )
    bias_scale: float = Field(
        0.05,
        ge=0,
        description=(
            "while training, logits are shifted by this times the log-odds of their labels; 0: "
            "not at all"
        ),
    )
    gamma: float = Field(2.0, ge=0, description="focusing as in focal loss; 0: none")


LossConfig = Annotated[
    WeightedBceConfig
    | SquaredHingeConfig
    | FocalConfig
    | AsymmetricConfig
    | ClassBalancedConfig
    | DistributionBalancedConfig,
    Field(discriminator="name"),
]


class OptimizerConfig(Section):
    """The optimizer."""

    name: Literal[
        "lazy_adam", "row_adagrad", "adam", "adamw", "adagrad", "sgd", "rmsprop", "lion"
    ] = Field(
        "lazy_adam",
        description=(
            "`lazy_adam` and `row_adagrad` update only the embeddings used in a batch, the latter "
            "with one number of state for each, which is faster and needs a learning rate of "
            "about 0.1; the others are those of Keras"
        ),
    )
    learning_rate: float = Field(1e-2, gt=0, description="the highest step size")
    learning_rate_embeddings: float | None = Field(
        None, gt=0, description="the same for the embeddings alone; null: learning_rate"
    )
    learning_rate_encoder: float | None = Field(
        None,
        gt=0,
        description=(
            "the same for the layers between embeddings and logits alone; null: learning_rate"
        ),
    )
    learning_rate_output: float | None = Field(
        None, gt=0, description="the same for the last layer alone; null: learning_rate"
    )
    layer_decay: float | None = Field(
        None,
        gt=0,
        le=1,
        description=(
            "what the learning rate of a layer of a pretrained encoder is multiplied by for each "
            "layer above it, so that lower ones move less; null: all move alike"
        ),
    )
    schedule: Literal["constant", "linear", "cosine", "plateau"] = Field(
        "constant",
        description=(
            "how the learning rate decays: until the end of train.epochs, or with `plateau` by "
            "plateau_factor after each plateau_patience epochs without a better train.objective on "
            "validation"
        ),
    )
    plateau_factor: float = Field(
        0.3, gt=0, lt=1, description="what `plateau` multiplies the learning rate by"
    )
    plateau_patience: int = Field(
        1,
        ge=1,
        description=(
            "epochs without a better train.objective before `plateau` lowers the learning rate"
        ),
    )
    warmup_fraction: Fraction = Field(
        0.0,
        description="fraction of the steps of train.epochs in which the learning rate first rises",
    )
    final_fraction: Fraction = Field(
        0.0, description="the lowest learning rate of a schedule, as a fraction of learning_rate"
    )
    clip_norm: float | None = Field(
        None,
        gt=0,
        description=(
            "gradients are scaled down to this norm, over all weights and replicas; null: never"
        ),
    )
    weight_decay: float | None = Field(
        None,
        ge=0,
        description=(
            "decay of kernels per step, times the learning rate (not of biases, norms and "
            "embeddings); null: 0.004 in adamw, else 0"
        ),
    )
    average_epochs: float | None = Field(
        None,
        gt=0,
        description=(
            "epochs that the average of the weights covers, which is validated, kept and exported "
            "in their place; null: no average"
        ),
    )


class CallbackConfig(_WithOptions):
    """A Keras callback; every other key is an argument of its constructor."""

    name: str = Field(
        min_length=1,
        description=(
            "one of keras.callbacks, or a class or function of your own, as package.module:function"
        ),
    )


class TrainConfig(Section):
    """The training run."""

    run_dir: Place = Field(description="checkpoints, logs and reports; default: out/NAME/run")
    strategy: Literal["auto", "one_device", "mirrored", "multi_worker"] = Field(
        "auto",
        description=(
            "auto: multi_worker where TF_CONFIG, Slurm or Vertex AI name several workers, else "
            "mirrored where there are several GPUs, else one device"
        ),
    )
    replicas: int | None = Field(
        None,
        ge=1,
        description="replicas of `mirrored`; null: one per GPU; without GPUs they are logical CPUs",
    )
    worker_timeout_seconds: int = Field(
        600, ge=1, description="how long workers wait for each other at the start"
    )
    shard_by: Literal["auto", "file", "example"] = Field(
        "auto",
        description=(
            "what is divided among workers: whole shards, or the documents of each step, whose "
            "order is then the same with any number of workers; auto: shards, if no worker gets "
            "5% more documents than the mean"
        ),
    )
    on_corrupt: Literal["error", "skip"] = Field(
        "error",
        description=(
            "a corrupt record in the train split stops the run, or what follows it in its shard "
            "is skipped and counted"
        ),
    )
    batch_size: int = Field(256, ge=1, description="documents per step, over all replicas")
    accumulate_steps: int = Field(
        1,
        ge=1,
        le=256,
        description=(
            "consecutive passes that the documents of a step are divided into: the same update in "
            "less memory"
        ),
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description=(
            "what the model computes in while training; weights, logits and loss stay float32, "
            "and float16 scales the loss. Evaluation and export compute in float32"
        ),
    )
    epochs: int = Field(10, ge=1, description="maximum number of epochs")
    objective: Objective = Field(
        "micro_f1",
        description=(
            "what is to be best on validation, at one threshold for all labels: the F1 of all "
            "decisions, in which frequent labels count most, or the mean of the F1 of the labels "
            "that occur. It decides which epoch is the best, when a run stops, that threshold, and "
            "what `auto` and `linear` choose"
        ),
    )
    patience: Literal["auto"] | Annotated[int, Field(ge=1)] | None = Field(
        "auto",
        description=(
            "stop after this many epochs without a better objective; null: never; auto: never "
            "while the learning rate falls to the end of train.epochs, else after 2, which count "
            "from the last lowering of the rate on"
        ),
    )
    callbacks: tuple[CallbackConfig, ...] = Field(
        (),
        description=(
            "Keras callbacks, such as {name: CSVLogger, filename: log.csv, append: true}; the "
            "metrics are loss, val_micro_f1, val_macro_f1 and the other columns of history.json. "
            "What patience and `optimizer.schedule: plateau` do needs none"
        ),
    )
    steps_per_call: int = Field(
        16, ge=1, description="training steps in one call of the compiled function"
    )
    shuffle_buffer: int = Field(
        10_000, ge=1, description="documents in the shuffle buffer; shards are shuffled as well"
    )
    length_bucket_steps: int | None = Field(
        None,
        ge=1,
        description=(
            "steps whose documents are sorted by length together, and then taken in a random "
            "order, so that models that pad to the longest document pad less; 1: not sorted; "
            "null: 16 for the models that pad (cnn, lstm, cnn_lwan, transformer), else 1"
        ),
    )
    checkpoint_steps: int | None = Field(
        None,
        ge=1,
        description="also save a checkpoint after every so many steps; null: only after each epoch",
    )
    keep_checkpoints: int = Field(
        2, ge=1, description="number of newest checkpoints kept, in addition to the best one"
    )
    seed: int = Field(0, ge=0, description="seed of weights, shuffling and dropout")
    folds: int | None = Field(
        None,
        ge=2,
        description=(
            "number of folds that the shards of the train and validation splits are assigned to "
            "where `fold` is set"
        ),
    )
    fold: int | None = Field(
        None,
        ge=0,
        description=(
            "the fold that the run validates on, from 0, in a run directory of its own, `fold-0` "
            "and so on; null: the dataset's own splits"
        ),
    )
    fold_repeat: int = Field(
        0,
        ge=0,
        description=(
            "which partition into folds: 0, or the number of a repeat that shuffles the shards "
            "before they are assigned to folds, so that k-fold can be repeated; the runs and "
            "models of repeat 1 go to `repeat-1/fold-0` and so on"
        ),
    )
    deterministic: bool = Field(
        False,
        description=(
            "only operations that give the same bits in every run of the same seed, on GPUs too; "
            "slower"
        ),
    )

    @pydantic.model_validator(mode="after")
    def _replicas_share_the_batch(self):
        if self.replicas is not None:
            if self.strategy != "mirrored":
                raise ValueError(
                    f"expected replicas with `strategy: mirrored` only, not with {self.strategy!r}"
                )
            if self.batch_size % self.replicas:
                raise ValueError(
                    f"expected a batch_size that replicas divide, not {self.batch_size} and "
                    f"{self.replicas}"
                )
        if self.fold is not None and (self.folds is None or self.fold >= self.folds):
            raise ValueError(f"expected a fold below folds, not {self.fold} of {self.folds}")
        if self.fold_repeat and self.folds is None:
            raise ValueError(
                f"expected fold_repeat with folds only, not {self.fold_repeat} and null"
            )
        if self.batch_size % self.accumulate_steps:
            raise ValueError(
                f"expected a batch_size that accumulate_steps divides, not {self.batch_size} and "
                f"{self.accumulate_steps}"
            )
        return self


# The keys of `train` that have a part in fitting a linear model; the others are about steps.
LINEAR_TRAIN_KEYS = {
    "run_dir",
    "strategy",
    "replicas",
    "worker_timeout_seconds",
    "on_corrupt",
    "folds",
    "fold",
    "fold_repeat",
    "objective",
}


class EvaluateConfig(Section):
    """The evaluation."""

    batch_size: int = Field(1024, ge=1, description="documents per step, over all replicas")
    at_k: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 3, 5), min_length=1, description="the k of precision, recall and nDCG at k"
    )
    min_positives: int = Field(
        10,
        ge=1,
        description=(
            "validation positives that a label needs for a threshold and a calibration of its "
            "own; the others use those of all labels together"
        ),
    )
    calibration: Literal["none", "temperature", "platt", "isotonic"] = Field(
        "none",
        description=(
            "how scores are calibrated on the validation split: not, by one scale, by a scale and "
            "a bias per label, or by a curve per label"
        ),
    )
    bootstrap_replicates: int = Field(
        200,
        ge=0,
        description="bootstrap replicates, for the 95% intervals of the headline metrics; 0: none",
    )
    propensity_a: float = Field(
        0.55,
        ge=0,
        description=(
            "A of the labels' propensities in propensity-scored precision (Jain et al. 2016)"
        ),
    )
    propensity_b: float = Field(
        1.5,
        ge=0,
        description=(
            "B of the same; the paper uses 0.55 and 1.5, for Wikipedia 0.5 and 0.4, for Amazon "
            "0.6 and 2.6"
        ),
    )


class ExportConfig(Section):
    """The SavedModel."""

    model_dir: Place = Field(description="parent of the numbered versions; default: out/NAME/model")
    top_k: int = Field(5, ge=1, description="labels that serving_default returns")
    threshold: Literal["global", "per_label", "best"] = Field(
        "per_label",
        description=(
            "the tuned thresholds that `decide` applies; best: none, every document gets its "
            "best-scored label alone, for data with one label a document"
        ),
    )
    thresholds_from: Place | None = Field(
        None,
        description=(
            "run_dir of an evaluated run with the same labels, whose thresholds and calibration "
            "are exported instead of this run's own, as for a model that was trained on all "
            "documents"
        ),
    )
    weights: Literal["float32", "float16", "bfloat16"] = Field(
        "float32",
        description=(
            "how matrices of weights are stored; the latter two halve the size, and `export` "
            "prints what that costs in F1"
        ),
    )
