"""The section `model`: a pretrained encoder."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from beam_jobs.contract.validation import Directory, Path_, Section

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
