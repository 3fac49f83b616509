"""How long each part of a job takes."""

from __future__ import annotations

import time

import psutil


class Parts:
    """The parts of this process's work, one after another from its start.

    seconds   part -> seconds, in order
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._ended = psutil.Process().create_time()

    def end(self, part: str, at: float | None = None) -> None:
        """The part ends now, or ended `at` a time in seconds since the epoch. The next part begins there."""
        now = time.time() if at is None else at
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._ended
        self._ended = now

    def __str__(self) -> str:
        return ", ".join(f"{part} {seconds:.0f} s" for part, seconds in self.seconds.items())
