"""The interface of a recurrent cell: its equations at one time step."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax.checks import check_is, check_size
from lstm_jax.types import Array, CellParams, Row, row_type

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Cell:
    """A recurrent cell: a static, hashable description, and `update` for one row.

    A subclass is a frozen dataclass that names its `gates` and `states` and defines `update`. All
    other members have defaults.

    Attributes:
      hidden: H, the width of every gate and state that `widths` does not name.
      gates: names of the blocks of pre-activations, packed in this order.
      states: names of the vectors carried from one time step to the next.
      reads: terms of a block's pre-activation, for blocks that do not take all: "x" for the input
        product only, "h" for the recurrent product only, "b" for the bias alone.
      bias: initial bias of the blocks that do not start at zero: a number, or one for each unit.
      unbiased: names of the blocks without a bias: it stays zero.
      ranges: closed intervals of activated gates and states, by name.
    """

    hidden: int

    gates: ClassVar[tuple[str, ...]] = ()
    states: ClassVar[tuple[str, ...]] = ("h",)
    reads: ClassVar[Mapping[str, str]] = {}
    bias: ClassVar[Mapping[str, float | np.ndarray]] = {}
    unbiased: ClassVar[tuple[str, ...]] = ()
    ranges: ClassVar[Mapping[str, Range]] = {}

    def __post_init__(self):
        check_size("hidden", self.hidden)
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
        """Returns the next state and the activated gates of one row at one time step.

        Args:
          gates: pre-activations, a vector [width] for each name in `gates`.
          state: the state before this time step, a vector [width] for each name in `states`.
          theta: the cell's small parameters, shared by all rows.

        A cell with a `draw` defines `update(gates, state, theta, draws=None)`: `draws` has the
        results of `draw` by field; with None, `update` computes expectations.
        """
        raise NotImplementedError(f"{type(self).__name__} must define update")

    def output(self, state: Row) -> Array:
        """Returns the output of the layer at one time step: `h`."""
        return state.h

    def feedback(self, state: Row) -> Array | tuple[Array, ...]:
        """Returns the vector, or tuple of vectors, that multiplies `w_h` next: `h`."""
        return state.h

    def init_theta(self, key: Array) -> Mapping[str, Array]:
        """Returns the initial small parameters by name; none by default."""
        del key
        return {}

    def draw(self, theta: Row, key: Array) -> Mapping[str, Array]:
        """Returns random vectors of floats for one row at one time step, by name.

        The default is an empty dictionary. The key is for this row and time step alone. `update`
        receives the vectors as constants, in the dtype of the states. The backward pass draws them
        again, so one key must always give the same vectors.
        """
        del theta, key
        return {}

    @property
    def noisy(self) -> bool:
        """Whether the cell has a `draw` of its own."""
        return type(self).draw is not Cell.draw

    def uniform(self) -> "Cell":
        """Returns an equivalent cell with all vectors `hidden` wide, for kernels.

        By default this is the cell itself. A cell with narrower gates or states may return the cell
        with the same equations in which every entry of them is repeated.
        """
        return self

    def wiring(self, name: str) -> np.ndarray | None:
        """Returns a mask [F, width] of the recurrent weights of block `name`; None for all.

        F is the width of the feedback. Weights where the mask is False stay zero.
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
        """Returns random vectors as a NamedTuple, by name."""
        return row_type(f"{type(self).__name__}Draws", tuple(values))(**values)


def check_is_cell(cell: object) -> None:
    """Raises TypeError unless `cell` is a cell."""
    check_is("cell", cell, Cell, "a cell, such as LSTM(64)")


def _hashable(cell: Cell, field: str) -> bool:
    try:
        hash(getattr(cell, field))
    except TypeError:
        return False
    return True


def initial_state(cell: Cell, batch_shape: int | tuple[int, ...] = (), dtype=jnp.float32) -> Row:
    """Returns the zero state, a vector [*batch_shape, width] for each of the cell's states.

    An integer `batch_shape` is a batch of that many rows.

    Raises:
      TypeError: `cell` is no cell; ValueError: a size is negative.
    """
    check_is_cell(cell)
    if not isinstance(batch_shape, tuple):
        batch_shape = (batch_shape,)
    if any(isinstance(size, int) and size < 0 for size in batch_shape):
        raise ValueError(f"batch must not be negative, got {batch_shape}")
    return cell.State(*(jnp.zeros((*batch_shape, cell.width(s)), dtype) for s in cell.states))


def feedback_parts(cell: Cell, state: Row) -> tuple[Array, ...]:
    """Returns the vectors that, concatenated, multiply `w_h` at the next time step."""
    parts = cell.feedback(state)
    return parts if isinstance(parts, tuple) else (parts,)


def feedback_width(cell: Cell) -> int:
    """Returns F, the width of the feedback: the number of rows of `w_h`."""
    parts = jax.eval_shape(lambda: feedback_parts(cell, initial_state(cell)))
    return sum(part.shape[-1] for part in parts)


def mask_params(cell: Cell, params: CellParams) -> CellParams:
    """Returns `params` with zeros for biases and recurrent weights that `cell` lacks.

    Raises:
      ValueError: `w_h` is a pair and the cell has a wiring, which a projection cannot respect.
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
    """Returns the number of parameters of one layer of `cell` on inputs [input_size]."""
    check_is_cell(cell)
    check_size("input_size", input_size, 0)
    widths = {name: cell.width(name) for name in cell.gates}
    exist, F = _recurrent(cell), feedback_width(cell)
    recurrent = F * sum(widths[g] for g in cell.h_blocks) if exist is None else int(exist.sum())
    theta = jax.eval_shape(lambda: dict(cell.init_theta(jax.random.key(0))))
    return (
        input_size * sum(widths[g] for g in cell.x_blocks)
        + recurrent
        + sum(width for g, width in widths.items() if g not in cell.unbiased)
        + sum(leaf.size for leaf in jax.tree.leaves(theta))
    )
