"""The choice of an engine: by name, by instance, or by the rule of "auto"."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax

from lstm_jax.cells import Cell, check_is_cell
from lstm_jax.engines.associative import Associative
from lstm_jax.engines.inputs import Inputs
from lstm_jax.engines.mosaic import Mosaic
from lstm_jax.engines.pallas import Pallas
from lstm_jax.engines.reference import Reference
from lstm_jax.engines.scan import Scan
from lstm_jax.types import Row


class Engine(Protocol):
    """Runs a cell over time. Engines are frozen dataclasses: their fields are their settings."""

    def loop(self, cell: Cell, emit: Callable[[Row], Any], inputs: Inputs) -> tuple[Row, Any]:
        """Returns the final state, and `emit` of every state [T, B, ...].

        `emit` maps the states of one time step, each [B, width], and closes over no traced value.
        """
        ...

    def refuses(self, cell: Cell, dtype: Any = None) -> str | None:
        """Returns why it cannot run `cell` on x of `dtype`, or None if it can.

        With dtype=None it returns a reason only if it cannot run the cell on any dtype.
        """
        ...


def _scan(cell: Cell, platform: str) -> Scan:
    """Returns a `Scan` with settings for the platform and width.

    They follow the measurements in docs/benchmarks.md. On a CPU the product is joined while the
    weights stay in cache (H < 384). Pre-activations are saved where recomputing them costs more
    than storing them (H >= 192). On other platforms kernel launches cost most, so the input product
    is hoisted and the loop unrolled.
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
    "scan_sqrt": lambda cell, platform: dataclasses.replace(
        _scan(cell, platform), residuals="sqrt"
    ),
    "associative": lambda cell, platform: Associative(),
    "pallas": lambda cell, platform: Pallas(platform),
    "mosaic": lambda cell, platform: Mosaic(platform),
}


def resolve(
    engine: str | Engine, cell: Cell, platform: str | None = None, dtype: Any = None
) -> Engine:
    """Returns the engine called `engine` for `cell`; an instance is returned as it is.

    Args:
      engine: a name, or an instance.
      cell: the recurrent cell.
      platform: "cpu", "gpu" or "tpu"; None for the default platform of jax.
      dtype: the dtype of x; None for any dtype that the engine supports.

    Raises:
      ValueError: the name is unknown, or the engine cannot run `cell`.
    """
    check_is_cell(cell)
    platform = platform or jax.default_backend()
    check_engine(engine)
    made = ENGINES[engine](cell, platform) if isinstance(engine, str) else engine
    if reason := made.refuses(cell, dtype):
        able = " and ".join(map(repr, serves(cell, platform, dtype)))
        raise ValueError(f"engine={engine!r} cannot run {cell}: {reason}; {able} can")
    return made


def check_engine(engine: Any) -> None:
    """Raises ValueError unless `engine` is the name of an engine or an instance."""
    is_instance = hasattr(engine, "loop") and not isinstance(engine, type)
    if not is_instance and not (isinstance(engine, str) and engine in ENGINES):
        raise ValueError(f"engine must be one of {sorted(ENGINES)} or an instance, got {engine!r}")


def serves(cell: Cell, platform: str | None = None, dtype: Any = None) -> tuple[str, ...]:
    """Returns the names of the engines that run `cell`, without "auto" and "scan_sqrt".

    Args:
      cell: the recurrent cell.
      platform: "cpu", "gpu" or "tpu"; None for the default platform of jax.
      dtype: the dtype of x; None for engines that support at least one dtype.
    """
    check_is_cell(cell)
    platform = platform or jax.default_backend()
    named = (name for name in ENGINES if name not in ("auto", "scan_sqrt"))  # these are "scan"
    return tuple(name for name in named if not ENGINES[name](cell, platform).refuses(cell, dtype))
