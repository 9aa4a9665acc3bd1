"""Failures to write of a job, in its own process or in a worker."""

import contextlib
import errno
import logging
import os
import re
from collections.abc import Iterator

from beam_jobs.contract.errors import UserError

_CODES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


@contextlib.contextmanager
def told(place: str, *, what: str, quiet: bool) -> Iterator[None]:
    """Turns a failure to write during the block into a UserError.

    Args:
      place: the output.
      what: the config key or flag that names it.
      quiet: keep Beam from logging the failure first.
    """
    beam_logger = logging.getLogger("apache_beam")
    level = beam_logger.level
    if quiet:
        beam_logger.setLevel(logging.CRITICAL)
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # A worker's error arrives as text.
        numbers = re.findall(r"\[Errno (\d+)\]", f"{error!r} {error}")
        codes = set(map(int, numbers)) & _CODES
        if not codes:
            raise
        reason = " and ".join(map(os.strerror, sorted(codes)))
        raise UserError(
            f"{what}: cannot write {place}: {reason}; nothing is published. Expected space for "
            "the output and about three times as much for the work on it"
        ) from None
    finally:
        beam_logger.setLevel(level)
