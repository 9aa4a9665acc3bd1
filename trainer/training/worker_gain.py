"""What several workers on CPUs exchange at each step, and whether that pays: told before a run."""

import dataclasses

import keras
import numpy as np

from beam_jobs.contract.config import Config
from beam_jobs.contract.sections.network_models import SequenceModel
from beam_jobs.contract.sections.pretrained_model import PretrainedConfig
from trainer.data.dataset import Dataset

# Measured with one core a worker, see docs/experiments/workers.md. Both are of the order of what
# other machines have, which is enough to tell a gain of a half from none.
_SECONDS_OF_DOCUMENT, _SECONDS_OF_TOKEN = 5e-6, 0.3e-6  # without what the weights take
_MULTIPLICATIONS_PER_SECOND = 4e10
_SECONDS_OF_EXCHANGES, _SECONDS_OF_BYTE = 6e-3, 2.4e-9
_SECONDS_OF_PRODUCT = 0.43e-9  # of a term and a dimension of another worker's document
_BYTES_OF_TERM = 12  # its row, document and weight
_MIN_GAIN = 1.5  # what is saved, as a multiple of what exchanging takes
_LARGEST_BATCH = 1 << 13  # of 8,192 documents the quickstart's epochs learn far less


@dataclasses.dataclass(frozen=True)
class Workload:
    """What decides how long a step takes.

    Attributes:
      workers: how many there are.
      tokens: of a document, the mean.
      tables: (rows, dimensions) of each embedding table.
      dense_weights: all other weights that are trained.
      sums_embeddings: a document is a weighted sum of embeddings, so its terms' weights and one
        vector are exchanged; otherwise rows of the tables are.
      passes: how often a document is multiplied with the dense weights.
    """

    workers: int
    tokens: float
    tables: tuple[tuple[int, int], ...]
    dense_weights: int
    sums_embeddings: bool
    passes: float

    def sent_bytes(self, batch_size: int) -> float:
        """What each worker sends in a step of so many documents over all workers."""
        documents = batch_size / self.workers
        sparse = 0.0
        for rows, dim in self.tables:
            by_rows = min(rows, documents * self.tokens) * (4 * dim + 4)
            by_documents = documents * (4 * dim + _BYTES_OF_TERM * self.tokens)
            factors = self.sums_embeddings and documents < rows
            sparse += by_documents if factors else by_rows
        others = self.workers - 1
        return others * sparse + 2 * others / self.workers * 4 * self.dense_weights

    def seconds_of_exchange(self, batch_size: int) -> float:
        """What exchanging takes in a step, and multiplying the factors of the others."""
        documents = batch_size * (1 - 1 / self.workers)
        dims = sum(dim for rows, dim in self.tables if batch_size / self.workers < rows)
        products = documents * self.tokens * dims if self.sums_embeddings else 0.0
        return (
            _SECONDS_OF_EXCHANGES
            + _SECONDS_OF_BYTE * self.sent_bytes(batch_size)
            + _SECONDS_OF_PRODUCT * products
        )

    def seconds_saved(self, batch_size: int) -> float:
        """What a worker saves in a step because others take their share of the documents."""
        multiplications = 3 * self.dense_weights * self.passes  # forwards, and twice backwards
        document = (
            _SECONDS_OF_DOCUMENT
            + _SECONDS_OF_TOKEN * self.tokens
            + multiplications / _MULTIPLICATIONS_PER_SECOND
        )
        return batch_size * (1 - 1 / self.workers) * document

    def pays(self, batch_size: int) -> bool:
        """Whether several workers are clearly faster than one."""
        return self.seconds_saved(batch_size) >= _MIN_GAIN * self.seconds_of_exchange(batch_size)


def workload_of(
    config: Config, dataset: Dataset, variables: list[keras.Variable], *, workers: int
) -> Workload:
    """The workload of a run with these trainable variables."""
    model = config.model
    encodes_once = isinstance(model, PretrainedConfig) and model.encodes_once
    quantiles = dataset.manifest.splits["train"].token_length_quantiles
    tokens = _mean(quantiles) if quantiles and not encodes_once else 0.0
    tables = tuple(
        tuple(v.shape) for v in variables if "embeddings" in v.path and len(v.shape) == 2
    )
    reads_in_order = not encodes_once and isinstance(model, SequenceModel | PretrainedConfig)
    return Workload(
        workers=workers,
        tokens=tokens,
        tables=tables,
        dense_weights=sum(int(np.prod(v.shape)) for v in variables)
        - sum(rows * dim for rows, dim in tables),
        sums_embeddings=_sends_factors(config),
        passes=max(1.0, tokens) if reads_in_order else 1.0,
    )


def _sends_factors(config: Config) -> bool:
    """Whether tables' gradients are sent as factors, see `trainer.training.exchange`."""
    model, train = config.model, config.train
    is_bag = hasattr(model, "token_weights")
    # The wide weights of words and of pairs of a table of their own are one table.
    is_sum_of_two = getattr(model, "wide", False) and getattr(model, "bigram_dim", None) is not None
    return (
        is_bag
        and not is_sum_of_two
        and train.accumulate_steps == 1
        and train.precision == "float32"
    )


def describe_exchange(workload: Workload, batch_size: int) -> str:
    """One line: what is sent, and where several workers are hardly faster, what would help."""
    sent = workload.sent_bytes(batch_size)
    text = f"each of {workload.workers} workers sends about {sent / 1e6:.1f} MB a step"
    if workload.pays(batch_size):
        return text
    better = batch_size
    while better <= _LARGEST_BATCH and not workload.pays(better):
        better *= 2
    larger = f"train.batch_size={better} or more, or " if better <= _LARGEST_BATCH else ""
    return (
        f"warning: {text}, which takes about {1e3 * workload.seconds_of_exchange(batch_size):.0f} "
        f"ms, and saves about {1e3 * workload.seconds_saved(batch_size):.0f} ms of a step of "
        f"{batch_size:,} documents: one worker may be faster. What would help: "
        f"{larger}one worker with the cores of all"
    )


def _mean(quantiles: dict[str, int]) -> float:
    """The mean of a distribution, from some of its quantiles, by their fractions."""
    fractions = sorted(quantiles, key=float)
    values = np.array([quantiles[fraction] for fraction in fractions], np.float64)
    widths = np.diff([float(fraction) for fraction in fractions])
    return float(np.sum(widths * (values[1:] + values[:-1]) / 2))
