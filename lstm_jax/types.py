"""The few types every room shares: rows of named vectors, parameters, batches, models."""

import collections
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.export
import jax.numpy as jnp
import jax.typing

Array = jax.Array
ArrayLike = Any  # an array of JAX or NumPy, or nested lists
_Kind = TypeVar("_Kind", bound=type)
Row = Any  # a NamedTuple of arrays made by `row_type`


def serializable(kind: _Kind) -> _Kind:
    """Registers a NamedTuple type for `jax.export` under its name and fields; returns it."""
    name = f"lstm_jax.{kind.__name__}({', '.join(kind._fields)})"  # pyright: ignore
    jax.export.register_namedtuple_serialization(kind, serialized_name=name)
    return kind


@functools.cache
def row_type(name: str, fields: tuple[str, ...]) -> type:
    """Returns the NamedTuple type called `name` with `fields`, the same object for the same words.

    Type identity is what pytrees compare, and pickling goes through this function, so that rows of
    a cell defined anywhere, a notebook included, survive both.
    """
    row = collections.namedtuple(name, fields)
    row.__reduce__ = lambda self: (_rebuild_row, (name, fields, tuple(self)))
    return serializable(row)


def _rebuild_row(name: str, fields: tuple[str, ...], values: tuple) -> Row:
    return row_type(name, fields)(*values)


LSTMState = row_type("LSTMState", ("h", "c"))


def wide(dtype: Any) -> Any:
    """Returns float32, or `dtype` where that is wider: what sums and states are kept in."""
    return jnp.dtype(dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32)


RecurrentWeights = Any  # a matrix, a pair of them, or None, see `CellParams`


@serializable
class CellParams(NamedTuple):
    """Parameters of one recurrent layer; matrices multiply on the right.

    Attributes:
      w_x: [D, X] input weights, one block of columns for each gate that reads the input.
      w_h: [H, Y] recurrent weights, one block of columns for each gate that reads the state; or a
        pair (P [H, J], U [J, Y]) applied as (h @ P) @ U, a recurrent projection; or None where no
        gate reads the state.
      b: [G] biases, one block for each gate.
      theta: NamedTuple of the cell's small vectors and scalars (peepholes, scales).
    """

    w_x: Array
    w_h: RecurrentWeights
    b: Array
    theta: Row


@serializable
class Noise(NamedTuple):
    """What chance does to one call of a loop. It is a constant: no gradient passes through it.

    Attributes:
      keys: [T] PRNG keys, one an instant, for a cell that is `noisy`; row b draws from
        fold_in(keys[t], b), so that a sequence and its keys may be split anywhere. `step` takes one
        key, of shape []. None is evaluation: the cell takes expectations.
      keep: [B, F] multiplies what is fed back, at every instant alike, in the dtype of states; None
        for nothing.
    """

    keys: Array | None = None
    keep: Array | None = None


@serializable
class Batch(NamedTuple):
    """Sequences to learn from, time first.

    Attributes:
      x: [T, B, D] inputs.
      y: targets, in the task's own form.
      mask: [T, B] bool, True where a step counts; None when every step does.
      reset: [T, B] bool, True where a new sequence begins in the row; None when none does.
    """

    x: Array
    y: Any
    mask: Array | None = None
    reset: Array | None = None


class Model(Protocol):
    """What learning sees of a network: two pure functions, hashable and equal by value."""

    def init(self, key: Array, trial: Any) -> Any:
        """Returns the parameters of one trial."""
        ...

    def apply(
        self,
        params: Any,
        x: Array,
        *,
        mask: Array | None = None,
        reset: Array | None = None,
        trial: Any = None,
        key: Array | None = None,
    ) -> Array:
        """Returns outputs [B, V] or [T, B, V]; without a key there is no noise (evaluation)."""
        ...


@runtime_checkable
class StreamModel(Model, Protocol):
    """What learning on a stream sees besides: where it starts, and states in and out."""

    def initial_state(self, params: Any, batch: int) -> Any:
        """Returns the state, any tree of arrays, that a stream of `batch` rows starts from."""
        ...

    def unroll(
        self,
        params: Any,
        x: Array,
        state: Any,
        *,
        mask: Array | None = None,
        reset: Array | None = None,
        trial: Any = None,
        key: Array | None = None,
    ) -> tuple[Any, Array]:
        """Is `apply` from a state: returns the state after x, and the outputs."""
        ...


Blocks = Mapping[str, Array]
