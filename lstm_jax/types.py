"""The types that all packages share: named vectors, parameters, batches and models."""

import collections
import functools
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.export
import jax.numpy as jnp
import jax.typing

Array = jax.Array
ArrayLike = Any  # an array of JAX or NumPy, or nested lists
_Kind = TypeVar("_Kind", bound=type)
_ONE_AT_A_TIME = threading.Lock()
Row = Any  # a NamedTuple of arrays made by `row_type`


def serializable(kind: _Kind) -> _Kind:
    """Registers a NamedTuple type for `jax.export` by its name and fields; returns it."""
    name = f"lstm_jax.{kind.__name__}({', '.join(kind._fields)})"  # pyright: ignore
    jax.export.register_namedtuple_serialization(kind, serialized_name=name)
    return kind


def row_type(name: str, fields: tuple[str, ...]) -> type:
    """Returns the NamedTuple type `name` with `fields`: equal arguments give one type.

    Pytrees compare types by identity, and pickling calls this function. Both therefore work for the
    rows of any cell, also of one defined in a notebook, and in several threads.
    """
    with _ONE_AT_A_TIME:  # a cache alone may make two types in two threads
        return _new_row_type(name, fields)


@functools.cache
def _new_row_type(name: str, fields: tuple[str, ...]) -> type:
    row = collections.namedtuple(name, fields)
    row.__reduce__ = lambda self: (_rebuild_row, (name, fields, tuple(self)))
    return serializable(row)


def _rebuild_row(name: str, fields: tuple[str, ...], values: tuple) -> Row:
    return row_type(name, fields)(*values)


LSTMState = row_type("LSTMState", ("h", "c"))


def wide(dtype: Any) -> Any:
    """Returns the dtype of sums and states: float32, or `dtype` where that is wider."""
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
    """Random inputs of one unroll; no gradient flows through them.

    Attributes:
      keys: [T] PRNG keys, one per time step, for a cell that is `noisy`. Row b draws from
        fold_in(keys[t], b), so a sequence and its keys may be split anywhere. `step` takes one key,
        of shape []. None is evaluation: the cell takes expectations.
      keep: [B, F] factor of the feedback, the same at all time steps, in the dtype of the states;
        None for no factor.
    """

    keys: Array | None = None
    keep: Array | None = None


@serializable
class Batch(NamedTuple):
    """A batch of training sequences, time first.

    Attributes:
      x: [T, B, D] inputs.
      y: targets, in the task's own form.
      mask: [T, B] bool, True at valid time steps; None if all are valid.
      reset: [T, B] bool, True where a sequence starts; None for no resets.
    """

    x: Array
    y: Any
    mask: Array | None = None
    reset: Array | None = None


class Rates(NamedTuple):
    """Rates of dropout and noise in a call with a key: numbers or traced scalars.

    Dropout rates are in [0, 1). Values that remain are divided by 1 - rate, so the mean does not
    change. With None nothing is drawn. `input_dropout` and `recurrent_dropout` draw one mask per
    row for the whole call; a reset does not draw it again.

    Attributes:
      dropout: rate for the outputs, between the layers of a stack and before the head, drawn anew
        at every time step (Srivastava et al. 2014; Zaremba et al. 2014).
      input_dropout: rate for the input of every layer, with the same units at all time steps (Gal &
        Ghahramani 2016).
      recurrent_dropout: rate for the feedback, with the same units at all time steps (Gal &
        Ghahramani 2016).
      weight_drop: rate for the recurrent weights, drawn once for all rows and time steps (Merity et
        al. 2018).
      input_noise: standard deviation, 0 or more, of normal noise on the input of the whole model,
        before any front, drawn anew at every time step (Greff et al. 2017).
      zoneout: state -> rate that overrides that of a `Zoneout` cell in every layer, with and
        without a key.
    """

    dropout: float | Array | None = None
    input_dropout: float | Array | None = None
    recurrent_dropout: float | Array | None = None
    weight_drop: float | Array | None = None
    input_noise: float | Array | None = None
    zoneout: Mapping[str, float | Array] | None = None


class Model(Protocol):
    """The interface that training needs: two pure functions, hashable and equal by value.

    A model whose sizes a task decides also has `sized(task)`, which returns it with them.
    """

    def init(self, key: Array, *, scale: Any, gate_bias: Mapping[str, Any]) -> Any:
        """Returns the initial parameters.

        Args:
          key: a PRNG key.
          scale: factor of the initial weights, a scalar.
          gate_bias: block -> initial bias of that block, scalars.
        """
        ...

    def apply(
        self,
        params: Any,
        x: Array,
        *,
        mask: Array | None = None,
        reset: Array | None = None,
        rates: Rates | None = None,
        key: Array | None = None,
    ) -> Array:
        """Returns outputs [B, V] or [T, B, V]; without a key, without noise (evaluation)."""
        ...


@runtime_checkable
class StreamModel(Model, Protocol):
    """A model that also trains on streams: it takes and returns states."""

    def initial_state(self, params: Any, batch: int) -> Any:
        """Returns the initial state of a stream of `batch` rows, any pytree of arrays."""
        ...

    def unroll(
        self,
        params: Any,
        x: Array,
        state: Any,
        *,
        mask: Array | None = None,
        reset: Array | None = None,
        rates: Rates | None = None,
        key: Array | None = None,
    ) -> tuple[Any, Array]:
        """Runs `apply` from a state; returns the state after x, and the outputs."""
        ...
