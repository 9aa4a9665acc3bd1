"""What a fit needs of memory and time, and how much memory there is."""

import dataclasses
import os
from pathlib import Path

from beam_jobs.contract.errors import UserError

# By kind of features: terms of a document for each of its tokens, on texts of 10 to 150 words.
_TERMS_OF_TOKEN = {
    "words": 0.9,
    "words_bigrams": 1.8,
    "words_chars": 14,
    "words_bigrams_chars": 15,
}
_BYTES_OF_TERM = 12  # a float64 and an int32
_BYTES_OF_NODE = 16  # liblinear's copy of it, or two in single precision, in each process
# Terms x labels that a core fits in a second, at least: liblinear 15 to 60 million, in groups of
# labels 50 (C 1) to 100 million (C 0.25).
_CELLS_A_SECOND = 20_000_000
_MAX_SECONDS = 600.0  # of a core, of features that are tried


@dataclasses.dataclass(frozen=True)
class Costs:
    """What the fits of one dataset take, by `model.features`.

    Attributes:
      num_tokens: tokens of the train split.
      num_labels: labels that are fitted.
      processes: that fit at the same time.
    """

    num_tokens: int
    num_labels: int
    processes: int

    def check_memory(self, features: str) -> None:
        """Refuses features that do not fit in memory.

        Raises:
          UserError: they do not.
        """
        needed, available = self._bytes(features), available_bytes()
        if needed > available:
            raise UserError(
                f"model.features: {features} of {self.num_tokens:,} train tokens need about "
                f"{needed / 2**30:.1f} GiB, received {available / 2**30:.1f} GiB of memory; "
                "expected a machine with more, or a model that is trained by steps, such as "
                "`model.name: bow`"
            )

    def obstacle(self, features: str) -> str:
        """Why features are not worth trying, for people; empty if they are."""
        needed, available = self._bytes(features), available_bytes()
        if needed > available:
            return (
                f"{features}, which needs about {needed / 2**30:.1f} GiB of memory, and "
                f"{available / 2**30:.1f} GiB are available"
            )
        terms = self.num_tokens * _TERMS_OF_TOKEN[features]
        seconds = terms * self.num_labels / _CELLS_A_SECOND
        if seconds > _MAX_SECONDS:
            return (
                f"{features}, whose fit would take about {seconds / 60:,.0f} minutes of a core; "
                f"`model.features: {features}` asks for it"
            )
        return ""

    def _bytes(self, features: str) -> int:
        """The memory that the features of the train split take while labels are fitted."""
        # Twice: parts of the matrix are put together, and processes map a copy of it.
        per_term = 2 * _BYTES_OF_TERM + self.processes * _BYTES_OF_NODE
        return int(self.num_tokens * _TERMS_OF_TOKEN[features] * per_term)


def available_bytes() -> int:
    """Memory that this process may still take: of the machine, or of its control group."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                pages = int(line.split()[1]) << 10
    try:
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        return max(0, min(pages, limit - used))
    except (OSError, ValueError):  # no such group, or no limit
        return pages
