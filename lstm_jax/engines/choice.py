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


def _auto(cell: Cell, x_shape: tuple[int, ...]) -> Engine:
    return Scan()


ENGINES: dict[str, Callable[[Cell, tuple[int, ...]], Engine]] = {
    "auto": _auto,
    "reference": lambda cell, x_shape: Reference(),
    "scan": lambda cell, x_shape: Scan(),
}


def resolve(engine: str | Engine, cell: Cell, x_shape: tuple[int, ...]) -> Engine:
    """Returns the engine that `engine` names for `cell` on inputs of shape [T, B, D].

    Raises:
      ValueError: the name is unknown.
    """
    if not isinstance(engine, str):
        return engine
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {sorted(ENGINES)} or an instance, got {engine!r}")
    return ENGINES[engine](cell, x_shape)


def platform() -> str:
    """Returns the platform that "auto" decides for: JAX's default backend."""
    return jax.default_backend()
