"""The progress of training: a bar in a terminal, occasional lines elsewhere."""

import sys
import time
from typing import Any

LINE_SECONDS = 30.0
ROWS = 20  # enough for one bar: tqdm hides it in a terminal that reports 0 rows or 1


class Quiet:
    """A meter that shows nothing; the base of the others."""

    def update(self, done: int, total: int, loss: float, active: int) -> None:
        """Shows `done` of `total` trial-steps, the median loss, and the running trials."""

    def close(self) -> None:
        """Ends the display."""


class Bar(Quiet):
    """A tqdm bar with the rate in trial-steps a second and the time left."""

    def __init__(self, bar: Any):
        """Takes a bar of `tqdm.tqdm`."""
        self._bar, self._timed = bar, False

    def update(self, done: int, total: int, loss: float, active: int) -> None:
        """Moves the bar; its clock starts with the first update, after compilation."""
        self._bar.total = total
        self._bar.set_postfix(loss=f"{loss:.4g}", active=active, refresh=False)
        if not self._timed:
            self._bar.n = self._bar.initial = done
            self._bar.unpause()
            self._timed = True
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Closes the bar."""
        self._bar.close()


class Lines(Quiet):
    """A line on stderr every half minute, for logs and without tqdm."""

    def __init__(self, group: str):
        self._group, self._written = group, time.monotonic()
        self._first: tuple[float, int] | None = None

    def update(self, done: int, total: int, loss: float, active: int) -> None:
        """Writes a line if one is due; the first has no rate, since it includes compilation."""
        now = time.monotonic()
        if now - self._written >= LINE_SECONDS:
            self._written = now
            share = done / total if total else 1.0
            line = f"{self._group}: {share:.0%}, loss {loss:.4g}, {active} trials running"
            print(line + self._speed(now, done, total), file=sys.stderr, flush=True)
        self._first = self._first or (now, done)

    def _speed(self, now: float, done: int, total: int) -> str:
        start, before = self._first or (now, done)
        if now == start or done == before:
            return ""
        rate = (done - before) / (now - start)
        return f", {rate:.4g} trial-steps/s, {(total - done) / rate:.0f} s left"


def meter(progress: bool, group: str, done: int) -> Quiet:
    """Returns a silent meter without `progress`, a bar in a terminal, and lines elsewhere."""
    if not progress:
        return Quiet()
    return (_bar(group, done) if sys.stderr.isatty() else None) or Lines(group)


def _bar(group: str, done: int) -> Bar | None:
    """Returns a bar; None without tqdm, which is an extra."""
    try:
        import tqdm
    except ImportError:
        return None
    return Bar(
        tqdm.tqdm(desc=group, initial=done, unit=" trial-steps", unit_scale=True, nrows=ROWS)
    )
