"""How much memory a fit needs, and how much there is."""

import os
from pathlib import Path

# By kind of features: terms of a document for each of its tokens, on texts of 10 to 150 words.
_TERMS_OF_TOKEN = {
    "words": 0.9,
    "words_bigrams": 1.8,
    "words_chars": 14,
    "words_bigrams_chars": 15,
}
_BYTES_OF_TERM = 12  # a float64 and an int32
_BYTES_OF_NODE = 16  # liblinear's copy of it, in each process


def bytes_needed(features: str, *, num_tokens: int, processes: int) -> int:
    """The memory that the features of the train split take while labels are fitted.

    Args:
      features: `model.features`, not `auto`.
      num_tokens: tokens of the train split.
      processes: that fit at the same time.
    """
    # Twice: parts of the matrix are put together, and processes map a copy of it.
    per_term = 2 * _BYTES_OF_TERM + processes * _BYTES_OF_NODE
    return int(num_tokens * _TERMS_OF_TOKEN[features] * per_term)


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
