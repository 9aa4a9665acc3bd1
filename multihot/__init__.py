"""multihot in Python: documents -> dataset -> run -> model, and the types that a config can name.

Nothing is loaded before it is used: `import multihot` needs neither TensorFlow nor Apache Beam.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beam_jobs.contract.config import Config
    from beam_jobs.contract.errors import UserError
    from beam_jobs.contract.ragged import row_ids
    from beam_jobs.sources.documents import Document, Reject
    from beam_jobs.sources.input_files import InputFile
    from beam_jobs.sources.registry import Reader
    from multihot.auditing import audit
    from multihot.classifier import MultihotClassifier
    from multihot.dataset import Dataset
    from multihot.model import Model, load
    from multihot.preprocessing import preprocess
    from multihot.run import Run, train
    from trainer.models.inputs import ModelInputs, VocabularyStatistics
    from trainer.runs.evaluation_record import Evaluation
    from trainer.serving.explain import Explanations

_MODULES = {
    # the three stages, and what they return
    "Config": "beam_jobs.contract.config",
    "Dataset": "multihot.dataset",
    "Evaluation": "trainer.runs.evaluation_record",
    "Explanations": "trainer.serving.explain",
    "Model": "multihot.model",
    "Run": "multihot.run",
    "UserError": "beam_jobs.contract.errors",
    "audit": "multihot.auditing",
    "load": "multihot.model",
    "preprocess": "multihot.preprocessing",
    "train": "multihot.run",
    "MultihotClassifier": "multihot.classifier",
    # `data.source: custom`
    "Document": "beam_jobs.sources.documents",
    "InputFile": "beam_jobs.sources.input_files",
    "Reader": "beam_jobs.sources.registry",
    "Reject": "beam_jobs.sources.documents",
    # `model.name: custom`
    "ModelInputs": "trainer.models.inputs",
    "VocabularyStatistics": "trainer.models.inputs",
    "row_ids": "beam_jobs.contract.ragged",
}

__all__ = [
    "Config",
    "Dataset",
    "Document",
    "Evaluation",
    "Explanations",
    "InputFile",
    "Model",
    "ModelInputs",
    "MultihotClassifier",
    "Reader",
    "Reject",
    "Run",
    "UserError",
    "VocabularyStatistics",
    "audit",
    "load",
    "preprocess",
    "row_ids",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from multihot import ownership

    ownership.check()
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value  # so that the next use finds it at once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
