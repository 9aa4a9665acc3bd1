"""The section `model`: which kinds of model there are."""

from typing import Annotated, Literal

from pydantic import Field

from beam_jobs.contract.sections.linear_model import LinearConfig
from beam_jobs.contract.sections.network_models import (
    BowConfig,
    BowLwanConfig,
    BowTreeConfig,
    CnnConfig,
    CnnLwanConfig,
    LstmConfig,
    MlpConfig,
    TransformerConfig,
)
from beam_jobs.contract.sections.pretrained_model import PretrainedConfig
from beam_jobs.contract.validation import Section, SectionWithOptions


class AutoConfig(Section):
    """The trainer chooses model, loss, optimizer and epochs by the sizes of the dataset."""

    name: Literal["auto"] = Field("auto", description="the architecture")


class CustomConfig(SectionWithOptions):
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
