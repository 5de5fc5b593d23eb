"""Which engine runs a loop: by name, by instance, or by the rule of "auto"."""

from collections.abc import Callable
from typing import Protocol

import jax

from lstm_jax.cells import Cell
from lstm_jax.engines.reference import Reference
from lstm_jax.engines.scan import Scan
from lstm_jax.types import Array, CellParams, Row


class Engine(Protocol):
    """Runs a cell over time. Engines are frozen dataclasses: their fields are their settings."""

    def loop(
        self,
        cell: Cell,
        emit: Callable[[Row], Row],
        params: CellParams,
        x: Array,
        state: Row,
        initial: Row,
        mask: Array | None,
        reset: Array | None,
    ) -> tuple[Row, Row]:
        """Returns the final state and what `emit` makes of every state [T, B, ...]."""
        ...


def _scan(cell: Cell, platform: str) -> Engine:
    """Picks settings by platform and width, from the measurements in docs/benchmarks.md.

    On a CPU the product is joined while the weights stay in cache (H < 384), and pre-activations
    are saved where their product costs more than the memory they fill (H >= 192). Elsewhere
    launches cost most: the input product is hoisted and the loop unrolled.
    """
    if platform != "cpu":
        return Scan(product="hoisted", chunk=64, unroll=8)
    if cell.hidden < 192:
        return Scan(product="joined", residuals="rebuilt")
    if cell.hidden < 384:
        return Scan(product="joined", residuals="saved")
    return Scan(product="hoisted", residuals="saved")


ENGINES: dict[str, Callable[[Cell, str], Engine]] = {
    "auto": _scan,
    "reference": lambda cell, platform: Reference(),
    "scan": _scan,
}


def resolve(engine: str | Engine, cell: Cell, platform: str | None = None) -> Engine:
    """Returns the engine that `engine` names for `cell`; an instance is its own name.

    Args:
      engine: a name, or an instance.
      cell: what it is to run.
      platform: where: "cpu", "gpu" or "tpu"; None for where jax runs by default.

    Raises:
      ValueError: the name is unknown.
    """
    if not isinstance(engine, str):
        return engine
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {sorted(ENGINES)} or an instance, got {engine!r}")
    return ENGINES[engine](cell, platform or jax.default_backend())
