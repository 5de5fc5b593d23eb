"""The contract of a recurrent cell: its equations at one instant, and nothing about time."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax.types import Array, CellParams, Row, row_type

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Cell:
    """A recurrent cell: a static, hashable description and `update`, one row of one instant.

    A subclass is a frozen dataclass that names its `gates` and `states` and writes `update`; what
    else it may say has a default here.

    Attributes:
      hidden: H, the width of every gate and state that `widths` does not name.
      gates: names of the blocks of pre-activations, packed in this order.
      states: names of the vectors carried from one instant to the next.
      reads: what a block's pre-activation is made of, for blocks that do not take both: "x" for
        the input only, "h" for the recurrent product only, "b" for the bias alone.
      bias: initial bias of the blocks that do not start at zero: a number, or one for each unit.
      unbiased: names of the blocks that have no bias: it is zero and stays so.
      ranges: closed intervals that activated gates and states must stay in, by name.
    """

    hidden: int

    gates: ClassVar[tuple[str, ...]] = ()
    states: ClassVar[tuple[str, ...]] = ("h",)
    reads: ClassVar[Mapping[str, str]] = {}
    bias: ClassVar[Mapping[str, float | np.ndarray]] = {}
    unbiased: ClassVar[tuple[str, ...]] = ()
    ranges: ClassVar[Mapping[str, Range]] = {}

    def __post_init__(self):
        if not isinstance(self.hidden, int) or self.hidden < 1:
            raise ValueError(f"hidden must be a positive integer, got {self.hidden!r}")
        for field in dataclasses.fields(self):
            if isinstance(getattr(self, field.name), jax.Array) or not _hashable(self, field.name):
                raise TypeError(
                    f"{type(self).__name__}.{field.name} must be hashable and no array: a cell is "
                    "a static description; arrays belong to CellParams.theta"
                )
        for name, source in self.reads.items():
            if name not in self.gates or source not in ("x", "h", "b"):
                raise ValueError(
                    f"{type(self).__name__}.reads[{name!r}] = {source!r}: expected one of the "
                    f"gates {self.gates} mapped to 'x', 'h' or 'b'"
                )

    def update(self, gates: Row, state: Row, theta: Row) -> tuple[Row, Row]:
        """Returns the next state and the activated gates of one row at one instant.

        Args:
          gates: pre-activations, a vector [width] for each name in `gates`.
          state: the state before this instant, a vector [width] for each name in `states`.
          theta: the cell's small parameters, shared by all rows.

        That of a cell which draws is `update(gates, state, theta, draws=None)`: what `draw` gave,
        by field, or None, which asks for what is expected.
        """
        raise NotImplementedError(f"{type(self).__name__} must define update")

    def output(self, state: Row) -> Array:
        """Returns what the layer emits at an instant: `h`."""
        return state.h

    def feedback(self, state: Row) -> Array | tuple[Array, ...]:
        """Returns what multiplies `w_h` at the next instant: `h`; or vectors, side by side."""
        return state.h

    def init_theta(self, key: Array) -> Mapping[str, Array]:
        """Returns the initial small parameters by name: none."""
        del key
        return {}

    def draw(self, theta: Row, key: Array) -> Mapping[str, Array]:
        """Returns what chance gives one row at one instant, by name: vectors of floats; nothing.

        The key is for this row and instant alone. `update` gets what is drawn in the dtype of the
        states and as a constant, without a gradient. It is drawn again in the backward pass: the
        same key must give the same.
        """
        del theta, key
        return {}

    @property
    def noisy(self) -> bool:
        """Whether the cell has a `draw` of its own."""
        return type(self).draw is not Cell.draw

    def uniform(self) -> "Cell":
        """Returns the cell with all its vectors `hidden` wide, for kernels: itself if it is that.

        A cell with narrower gates or states may say here which cell has the same equations where
        every entry of them is repeated, to be as wide as the others.
        """
        return self

    def wiring(self, name: str) -> np.ndarray | None:
        """Returns which recurrent weights [F, width] of the block called `name` exist: None, all.

        F is the width of what is fed back. The others are zero and stay so.
        """
        del name
        return None

    def widths(self) -> Mapping[str, int]:
        """Returns the widths of the gates and states that are not `hidden` wide."""
        return {}

    def width(self, name: str) -> int:
        """Returns the width of the gate or state called `name`."""
        return self.widths().get(name, self.hidden)

    @property
    def x_blocks(self) -> tuple[str, ...]:
        """Names of the gates that read the input: the blocks of columns of `w_x`."""
        return tuple(g for g in self.gates if self.reads.get(g, "x") == "x")

    @property
    def h_blocks(self) -> tuple[str, ...]:
        """Names of the gates that read the state: the blocks of columns of `w_h`."""
        return tuple(g for g in self.gates if self.reads.get(g, "h") == "h")

    @property
    def Gates(self) -> type:
        """The NamedTuple type of the cell's gates."""
        return row_type(f"{type(self).__name__}Gates", tuple(self.gates))

    @property
    def State(self) -> type:
        """The NamedTuple type of the cell's state, `LSTMState(h, c)` for the LSTM."""
        return row_type(f"{type(self).__name__}State", tuple(self.states))

    def Theta(self, values: Mapping[str, Array]) -> Row:
        """Returns small parameters as a NamedTuple, by name."""
        return row_type(f"{type(self).__name__}Theta", tuple(values))(**values)

    def Draws(self, values: Mapping[str, Array]) -> Row:
        """Returns what was drawn as a NamedTuple, by name."""
        return row_type(f"{type(self).__name__}Draws", tuple(values))(**values)


def _hashable(cell: Cell, field: str) -> bool:
    try:
        hash(getattr(cell, field))
    except TypeError:
        return False
    return True


def initial_state(cell: Cell, batch_shape: int | tuple[int, ...] = (), dtype=jnp.float32) -> Row:
    """Returns the zero state, a vector [*batch_shape, width] for each of the cell's states.

    A whole number is a batch of so many rows.
    """
    if not isinstance(batch_shape, tuple):
        batch_shape = (batch_shape,)
    return cell.State(*(jnp.zeros((*batch_shape, cell.width(s)), dtype) for s in cell.states))


def feedback_parts(cell: Cell, state: Row) -> tuple[Array, ...]:
    """Returns the vectors that, side by side, multiply `w_h` at the next instant."""
    given = cell.feedback(state)
    return given if isinstance(given, tuple) else (given,)


def feedback_width(cell: Cell) -> int:
    """Returns the width of what multiplies `w_h`."""
    parts = jax.eval_shape(lambda: feedback_parts(cell, initial_state(cell)))
    return sum(part.shape[-1] for part in parts)


def wired(cell: Cell, params: CellParams) -> CellParams:
    """Returns `params` with zeros for the biases and recurrent weights that `cell` does not have.

    Raises:
      ValueError: `w_h` is a pair and the cell has a wiring, which a projection would undo.
    """
    if cell.unbiased:
        biased = [np.full(cell.width(g), g not in cell.unbiased) for g in cell.gates]
        params = params._replace(b=params.b * np.concatenate(biased).astype(params.b.dtype))
    if (exist := _recurrent(cell)) is not None:
        if isinstance(params.w_h, tuple):
            raise ValueError(f"w_h must be one matrix, not a pair (P, U), for the wiring of {cell}")
        params = params._replace(w_h=params.w_h * exist.astype(params.w_h.dtype))
    return params


def _recurrent(cell: Cell) -> np.ndarray | None:
    wirings = [cell.wiring(name) for name in cell.h_blocks]
    if all(wiring is None for wiring in wirings):
        return None
    full = [np.ones((feedback_width(cell), cell.width(name)), bool) for name in cell.h_blocks]
    return np.concatenate(
        [f if w is None else w for f, w in zip(full, wirings, strict=True)], axis=1
    )


def parameter_count(cell: Cell, input_size: int) -> int:
    """Returns how many parameters one layer of `cell` has on inputs of width `input_size`."""
    widths = {name: cell.width(name) for name in cell.gates}
    exist, rows = _recurrent(cell), feedback_width(cell)
    recurrent = rows * sum(widths[g] for g in cell.h_blocks) if exist is None else int(exist.sum())
    theta = jax.eval_shape(lambda: dict(cell.init_theta(jax.random.key(0))))
    return (
        input_size * sum(widths[g] for g in cell.x_blocks)
        + recurrent
        + sum(width for g, width in widths.items() if g not in cell.unbiased)
        + sum(leaf.size for leaf in jax.tree.leaves(theta))
    )
