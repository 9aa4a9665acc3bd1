"""Times as documents have them: in ISO 8601, or as a number since 1970."""

import re
from datetime import datetime, timedelta, timezone

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone(timedelta(0)))


def iso_of_epoch(text: str, unit: str) -> str | None:
    """A number of `seconds`, `milliseconds` or `microseconds` since 1970 in ISO 8601; None: it is
    no number, or outside of the years 1 to 9999.
    """
    try:
        number = float(text) if re.search("[.eE]", text) else int(text)
        return (_EPOCH + timedelta(**{unit: number})).isoformat()
    except (ValueError, OverflowError):
        return None


def parse_time(text: str) -> datetime:
    """A time in ISO 8601; without an offset it is UTC. Raises ValueError if it is not one."""
    time = datetime.fromisoformat(text.replace("Z", "+00:00"))  # Python 3.10 knows no Z
    return time if time.tzinfo else time.replace(tzinfo=timezone(timedelta(0)))
