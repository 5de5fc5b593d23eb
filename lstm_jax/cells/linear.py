"""Cells that are linear in their state and can run as an associative scan."""

import dataclasses

from lstm_jax.cells.base import Cell
from lstm_jax.types import Array, Row


@dataclasses.dataclass(frozen=True)
class LinearCell(Cell):
    """A cell with input-only gates and one state, linear in the previous state.

        a, b = linear(gates)                      from the input at this time step only
        h' = a * h + b                            unit by unit

    A subclass names its `gates`, which read "x" by default, and defines `linear`; `update` follows
    from it. Such a cell also runs as an associative scan.

    Raises:
      ValueError: a gate reads the state, or the number of states is not one.
    """

    def __post_init__(self):
        super().__post_init__()
        if self.h_blocks:
            raise ValueError(f"{self} is a LinearCell: its gates {self.h_blocks} must not read h")
        if len(self.states) != 1:
            raise ValueError(f"{self} is a LinearCell: it must have one state, got {self.states}")

    @property
    def reads(self):
        """Each gate reads the input only."""
        return dict.fromkeys(self.gates, "x")

    def linear(self, gates: Row, theta: Row) -> tuple[Array, Array, Row]:
        """Returns a and b, both as wide as the state, and the activated gates.

        Args:
          gates: pre-activations, a vector [width] for each name in `gates`.
          theta: the cell's small parameters, shared by all rows.
        """
        raise NotImplementedError(f"{type(self).__name__} must define linear")

    def update(self, gates, state, theta):
        """Returns the next state and the activated gates of one row."""
        a, b, activated = self.linear(gates, theta)
        return state._make([a * state[0] + b]), activated
