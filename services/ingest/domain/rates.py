"""How often somebody may come: a steady rate with a small burst (GCRA, a leaky bucket as a clock).

Each name has one number: when its next request is due. Who is early by no more than the burst may
go ahead; a request that may not changes nothing, so that trying again costs no patience.
"""

from collections.abc import Sequence

BURST_SECONDS = 1.0  # so much of the rate may come at once; at least one request
_ROUNDING = 1e-6


class Limiter:
    """Remembers what has come, for as many names as it is asked about."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}

    def wait(self, limits: Sequence[tuple[str, float]], now: float) -> float:
        """Seconds until a request may come that counts for all these names; 0: it is counted.

        Each name comes with its requests per second; 0 means that it isn't limited.
        """
        longest = 0.0
        counted: list[tuple[str, float]] = []
        for name, rate in limits:
            if rate <= 0:
                continue
            due = max(self._due.get(name, 0.0), now) + 1 / rate
            longest = max(longest, due - now - max(BURST_SECONDS, 1 / rate))
            counted.append((name, due))
        if longest > _ROUNDING:
            return longest
        self._due.update(counted)
        return 0.0
