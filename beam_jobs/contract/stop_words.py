"""Stop words: from what the config names to the words themselves."""

from pathlib import Path

from beam_jobs.contract import english
from beam_jobs.contract.dataset_config import TextConfig
from beam_jobs.contract.errors import UserError


def resolve(text: TextConfig) -> TextConfig:
    """The specification with its stop words written out, so that it depends on no file.

    Raises:
      UserError: the stop-word file cannot be read.
    """
    words = text.stop_words
    if isinstance(words, str):
        if words == "english":
            words = english.STOP_WORDS
        else:
            try:
                lines = Path(words).read_text(encoding="utf-8-sig").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(
                    f"text.stop_words: cannot read {words!r}: {error}. Expected `english`, a list, or a UTF-8 file with one word a line"
                ) from None
            words = tuple(line.strip() for line in lines if line.strip())
    return text.model_copy(update={"stop_words": tuple(sorted(set(words))) if words else None})
