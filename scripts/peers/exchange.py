"""Files between the benchmark and its processes, some of which have no TensorFlow.

Texts are analyzed: tokens joined by one space, so that no text holds a tab or a line break.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import scipy.sparse

MAX_SCORED_LABELS = 500  # best-scored labels kept per document; the others count as score 0
_BATCH_BYTES = 64 << 20  # 64 MiB: a batch of dense scores, float32 [documents, labels]


@dataclasses.dataclass(frozen=True)
class Split:
    """Documents of a split.

    Attributes:
      rows: analyzed texts; several text fields are separated by tabs.
      labels: float32 [documents, labels], 1 where a document has a label.
    """

    rows: list[str]
    labels: scipy.sparse.csr_matrix

    @property
    def texts(self) -> list[str]:
        """One text per document."""
        return texts_of(self.rows)

    @property
    def label_ids(self) -> list[np.ndarray]:
        """Label ids per document."""
        return np.split(self.labels.indices, self.labels.indptr[1:-1])


def texts_of(rows: Iterable[str]) -> list[str]:
    """Rows of a `Split` -> one text per document."""
    return [row.replace("\t", " ") for row in rows]


def write_split(directory: Path, name: str, split: Split) -> None:
    """Writes what `read_split` reads."""
    (directory / f"{name}.txt").write_bytes("".join(f"{row}\n" for row in split.rows).encode())
    scipy.sparse.save_npz(directory / f"{name}-labels.npz", split.labels, compressed=False)


def read_split(directory: Path, name: str) -> Split:
    """The split that `write_split` wrote."""
    rows = (directory / f"{name}.txt").read_bytes().decode().split("\n")[:-1]
    return Split(rows, scipy.sparse.load_npz(directory / f"{name}-labels.npz").tocsr())


def batch_documents(num_labels: int) -> int:
    """Documents in a batch, at most 1,024, whose dense scores stay within 64 MiB."""
    return max(1, min(1024, _BATCH_BYTES // (4 * num_labels)))


class ScoreWriter:
    """Writes the best scores of each document to disk, batch by batch.

    Args:
      directory: an existing directory.
      split: the split's name.
      num_labels: the number of labels.
    """

    def __init__(self, directory: Path, split: str, num_labels: int):
        self._keep = min(num_labels, MAX_SCORED_LABELS)
        self._ids, self._scores = (open(path, "wb") for path in _score_files(directory, split))

    def add(self, scores) -> None:
        """Adds a batch, [documents, labels]: a NumPy array, or a CSR matrix (missing: score 0)."""
        if scipy.sparse.issparse(scores):
            scores = scores.toarray()
        scores = np.asarray(scores, np.float32)
        # Stable: of equal scores the lower label id is kept, as the ranking metrics break ties.
        if self._keep == scores.shape[1]:
            ids = np.broadcast_to(np.arange(self._keep, dtype=np.int32), scores.shape)
        else:
            ids = np.argsort(-scores, axis=1, kind="stable")[:, : self._keep].astype(np.int32)
        self._ids.write(np.ascontiguousarray(ids).tobytes())
        self._scores.write(np.take_along_axis(scores, ids, axis=1).tobytes())

    def close(self) -> None:
        self._ids.close()
        self._scores.close()


def read_scores(directory: Path, split: str, *, num_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Label ids, int32, and scores, float32, both [documents, kept labels], mapped from disk."""
    shape = (-1, min(num_labels, MAX_SCORED_LABELS))
    ids, scores = _score_files(directory, split)
    return (
        np.memmap(ids, np.int32, "r").reshape(shape),
        np.memmap(scores, np.float32, "r").reshape(shape),
    )


def _score_files(directory: Path, split: str) -> tuple[Path, Path]:
    return directory / f"{split}-ids.i32", directory / f"{split}-scores.f32"
