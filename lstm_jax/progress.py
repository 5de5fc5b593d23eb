"""Saying how far training is: a bar in a terminal, a line now and then elsewhere."""

import sys
import time
from typing import Any

LINE_SECONDS = 30.0


class Quiet:
    """Says nothing; what the others are, too."""

    def update(self, done: int, total: int, loss: float, active: int) -> None:
        """Tells of `done` of `total` trial-steps, the typical loss, the trials still running."""

    def close(self) -> None:
        """Says goodbye."""


class Bar(Quiet):
    """A tqdm bar with the rate in trial-steps a second and the time left."""

    def __init__(self, group: str, done: int):
        try:
            import tqdm
        except ImportError:
            raise ImportError("the bar needs tqdm: pip install 'lstm_jax[experiments]'") from None
        self._bar: Any = tqdm.tqdm(desc=group, initial=done, unit=" trial-steps", unit_scale=True)

    def update(self, done: int, total: int, loss: float, active: int) -> None:
        """Moves the bar."""
        self._bar.total = total
        self._bar.set_postfix(loss=f"{loss:.4g}", active=active, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Leaves the bar where it is."""
        self._bar.close()


class Lines(Quiet):
    """A line to stderr every half minute, for logs."""

    def __init__(self, group: str, done: int):
        self._group, self._begun = group, done
        self._started = self._told = time.monotonic()

    def update(self, done: int, total: int, loss: float, active: int) -> None:
        """Writes a line when it is time."""
        now = time.monotonic()
        if now - self._told < LINE_SECONDS:
            return
        self._told = now
        rate = max(1, done - self._begun) / (now - self._started)
        left = (total - done) / rate
        print(
            f"{self._group}: {done / total:.0%}, loss {loss:.4g}, {active} trials running, "
            f"{rate:.4g} trial-steps/s, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )


def meter(progress: bool, group: str, done: int) -> Quiet:
    """Returns the meter that suits: none when not wanted, a bar in a terminal, else lines."""
    if not progress:
        return Quiet()
    return Bar(group, done) if sys.stderr.isatty() else Lines(group, done)
