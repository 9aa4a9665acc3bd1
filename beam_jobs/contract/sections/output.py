"""The section `output`: where the dataset is written, and in what shards."""

from typing import Literal

from pydantic import Field

from beam_jobs.contract.validation import Place, Section


class OutputConfig(Section):
    """Where the dataset is written, and in what shards."""

    dataset_dir: Place = Field(
        description=(
            "the place of the dataset: a directory, or one of gs://, s3:// or hdfs://; default: "
            "out/NAME/dataset"
        )
    )
    shards: int | None = Field(
        None, ge=1, le=99_999, description="shards per split; null: as many as shard_bytes needs"
    )
    shard_bytes: int = Field(
        128 << 20,
        ge=1 << 10,
        description="target size of a shard in bytes (default 128 MiB), where shards is null",
    )
    compression: Literal["none", "gzip"] = Field(
        "none", description="compression of the shards; TensorFlow Datasets reads only `none`"
    )
