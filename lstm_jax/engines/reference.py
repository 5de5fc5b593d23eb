"""The plain loop: `lax.scan` over instants, differentiated by JAX. The truth the others equal."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from lstm_jax.cells import Cell
from lstm_jax.engines.products import advance, fed_back, preactivations
from lstm_jax.engines.select import begin, where_row
from lstm_jax.types import Array, CellParams, Noise, Row


@dataclasses.dataclass(frozen=True)
class Reference:
    """The plain engine: slow, simple, and the only one with forward-mode derivatives."""

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
        noise: Noise,
    ) -> tuple[Row, Row]:
        """Returns the final state and what `emit` makes of every state [T, B, ...]."""

        def instant(state, inputs):
            x_t, mask_t, reset_t, key = inputs
            start = begin(reset_t, initial, state)
            packed = preactivations(cell, params, x_t, fed_back(cell, start, noise.keep))
            new, _ = advance(cell, packed, start, params.theta, key)
            state = where_row(mask_t, new, start)
            return state, emit(state)

        return jax.lax.scan(instant, state, (x, mask, reset, noise.keys))

    def refuses(self, cell: Cell, dtype: Any = None) -> None:
        """Returns None: it runs every cell."""
