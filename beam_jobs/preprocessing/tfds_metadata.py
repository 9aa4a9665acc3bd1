"""`features.json` and `dataset_info.json`, which TensorFlow Datasets 4.9 reads
(`tfds.builder_from_directory`).
"""

import json
from collections.abc import Mapping

from beam_jobs.contract import places
from beam_jobs.contract.manifest import SplitInfo
from beam_jobs.contract.records import Feature, RecordSpec

FEATURES = "features.json"
DATASET_INFO = "dataset_info.json"

_CLASSES = "tensorflow_datasets.core.features"
_DICTIONARY = f"{_CLASSES}.features_dict.FeaturesDict"
_DTYPES = {"bytes": "string", "int64": "int64", "float": "float32"}


def write_metadata(
    directory: str,
    name: str,
    record_spec: RecordSpec,
    splits: Mapping[str, SplitInfo],
    *,
    has_weights: bool,
) -> list[str]:
    """Writes both files and returns their names.

    TensorFlow Datasets has no defaults of features, so the weight is listed only if every record
    holds it. Nor does it read compressed TFRecords: for such shards nothing is written.
    """
    if any(shard.file.endswith(".gz") for split in splits.values() for shard in split.shards):
        return []
    features: dict = {}
    for feature in record_spec.features:
        if feature.default is None or has_weights:
            group, _, name_in_group = feature.name.partition("/")
            if name_in_group:
                features.setdefault(group, _group())["featuresDict"]["features"][name_in_group] = (
                    _feature(feature)
                )
            else:
                features[group] = _feature(feature)
    content = {
        "type": _DICTIONARY,
        "content": {"features": features},
        "proto_cls": "tensorflow_datasets.FeaturesDict",
    }
    info = {
        "name": name,
        "version": "1.0.0",
        "fileFormat": "tfrecord",
        "splits": [_split(name, split) for name, split in splits.items() if split.examples],
    }
    for file, value in ((FEATURES, content), (DATASET_INFO, info)):
        places.write(places.join(directory, file), json.dumps(value, indent=1) + "\n")
    return [FEATURES, DATASET_INFO]


def _group() -> dict:
    return {"pythonClassName": _DICTIONARY, "featuresDict": {"features": {}}}


def _feature(feature: Feature) -> dict:
    tensor = {
        "pythonClassName": f"{_CLASSES}.tensor_feature.Tensor",
        "tensor": {"shape": {}, "dtype": _DTYPES[feature.dtype], "encoding": "none"},
    }
    if not feature.ragged:
        return tensor
    return {
        "pythonClassName": f"{_CLASSES}.sequence_feature.Sequence",
        "sequence": {"feature": tensor, "length": "-1"},
    }


def _split(name: str, split: SplitInfo) -> dict:
    return {
        "name": name,
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "numBytes": str(sum(shard.bytes for shard in split.shards)),
        "shardLengths": [str(shard.examples) for shard in split.shards],
    }
