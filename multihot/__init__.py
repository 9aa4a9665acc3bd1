"""What your own code imports: the types of sources and of models that a config can name.

Nothing is loaded before it is used: `import multihot` needs neither TensorFlow nor Apache Beam.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beam_jobs.sources.documents import Document, Reject
    from beam_jobs.sources.input_files import InputFile
    from beam_jobs.sources.registry import Reader
    from trainer.models.inputs import ModelInputs, VocabularyStatistics

_MODULES = {
    # `data.source: custom`
    "Document": "beam_jobs.sources.documents",
    "InputFile": "beam_jobs.sources.input_files",
    "Reader": "beam_jobs.sources.registry",
    "Reject": "beam_jobs.sources.documents",
    # `model.name: custom`
    "ModelInputs": "trainer.models.inputs",
    "VocabularyStatistics": "trainer.models.inputs",
}

__all__ = [
    "Document",
    "InputFile",
    "ModelInputs",
    "Reader",
    "Reject",
    "VocabularyStatistics",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value  # so that the next use finds it at once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
