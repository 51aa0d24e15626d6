"""How far a sweep is, and how long it will take: a line that is redrawn on a terminal, a line per point elsewhere."""
from __future__ import annotations

import sys
import time
from typing import TextIO

WIDTH = 20


def clock(seconds: float) -> str:
    whole = int(round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def bar(done: int, total: int) -> str:
    """A little is shown as something, and only all as all."""
    filled = max(1 if done else 0, done * WIDTH // total) if total else WIDTH
    return f"[{'#' * filled}{'.' * (WIDTH - filled)}]"


def seconds_left(taken: dict[str, list[float]], left: list[str]) -> float | None:
    """By layout: its own mean where it has been measured, else the mean of all; None before the first point."""
    everything = [seconds for times in taken.values() for seconds in times]
    if not everything:
        return None
    mean = sum(everything) / len(everything)
    return sum(sum(taken[layout]) / len(taken[layout]) if taken.get(layout) else mean for layout in left)


class Progress:
    """`left` has the layout of each point that is still to be measured, in order."""

    def __init__(self, total: int, left: list[str], stream: TextIO = sys.stderr) -> None:
        self._total = total
        self._left = list(left)
        self._taken: dict[str, list[float]] = {}
        self._stream = stream
        self._begin = self._point_begin = time.monotonic()

    def tell(self, point_id: str, doing: str) -> None:
        if not self._stream.isatty():
            return
        estimate = seconds_left(self._taken, self._left)
        if estimate is not None:
            estimate = max(0.0, estimate - (time.monotonic() - self._point_begin))
        self._write(
            f"\r\033[K{self._head()} {point_id}: {doing}; {clock(time.monotonic() - self._begin)} passed, "
            + ("time left not known yet" if estimate is None else f"about {clock(estimate)} left")
        )

    def done(self, point_id: str, outcome: str) -> None:
        self._taken.setdefault(self._left.pop(0), []).append(time.monotonic() - self._point_begin)
        self._point_begin = time.monotonic()
        left = seconds_left(self._taken, self._left) or 0.0
        start = "\r\033[K" if self._stream.isatty() else ""
        self._write(f"{start}{self._head()} {point_id}: {outcome}; about {clock(left)} left\n")

    def end(self) -> None:
        if self._stream.isatty():
            self._write("\r\033[K")

    def _head(self) -> str:
        done = self._total - len(self._left)
        return f"{bar(done, self._total)} {done} of {self._total}"

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
