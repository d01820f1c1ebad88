"""How long to wait before the next attempt. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Doubles the pause with every failure in a row. Seconds."""

    first_s: float = 0.25
    longest_s: float = 5.0
    stable_s: float = 2.0  # success must last this long to count: what fails at once again is not tried at full speed
    failures: int = 0  # in a row

    def failed(self, worked_s: float = 0.0) -> float:
        """Note a failure.

        Args:
            worked_s: how long things had worked before it.

        Returns:
            Seconds to wait.
        """
        self.failures = 1 if worked_s >= self.stable_s else self.failures + 1
        return float(min(self.longest_s, self.first_s * 2.0 ** min(self.failures - 1, 30)))
