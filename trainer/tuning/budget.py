"""How long a search goes on."""

import statistics
import time
from collections.abc import Callable, Sequence


class Budget:
    """What `tune.time` and `tune.trials` leave.

    Args:
      seconds: of this call, from now on; None: any.
      trials: of the study; None: any.
      clock: seconds that rise.
    """

    def __init__(
        self,
        seconds: float | None,
        trials: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._seconds, self._trials, self._clock = seconds, trials, clock
        self._started = clock()

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return self._seconds is not None and self._left() <= 0

    def reason_to_end(self, *, begun: int, durations: Sequence[float]) -> str | None:
        """Why no further trial begins, for people; None: one may.

        Args:
          begun: trials of the study that have begun.
          durations: seconds of each one that has ended by itself. The next is taken to last as long
            as their median.
        """
        if self._trials is not None and begun >= self._trials:
            return f"the study has its {self._trials:,} trials"
        if self._seconds is None:
            return None
        left, expected = self._left(), statistics.median(durations) if durations else 0.0
        if left <= 0:
            return "the time is up"
        if expected > left:
            return f"a trial takes about {expected:,.0f} s, and {left:,.0f} s are left"
        return None

    def _left(self) -> float:
        return self._seconds - (self._clock() - self._started)
