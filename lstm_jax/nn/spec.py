"""A hashable specification of a model, with pure functions of its parameters."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from lstm_jax.cells import Cell, check_is_cell
from lstm_jax.checks import check_choice, check_is, check_size
from lstm_jax.engines import Engine, resolve
from lstm_jax.engines.checks import array
from lstm_jax.engines.choice import check_engine
from lstm_jax.nn.initializers import (
    BiasInit,
    WeightInit,
    check_initializers,
    check_projection,
    glorot,
    orthogonal,
)
from lstm_jax.nn.model import SequenceModel, TiedHead
from lstm_jax.nn.recurrent import Recurrent, check_rngs, stored
from lstm_jax.nn.stack import Bidirectional, Stack, State
from lstm_jax.types import Array, ArrayLike, Rates


@dataclasses.dataclass(frozen=True)
class SequenceSpec:
    """The specification of a `SequenceModel`, with pure functions `init` and `apply`.

    It is hashable and equal by value, so compiled functions can be cached by it. A dense front and
    the head start with LeCun-normal weights and zero biases, an embedding with rows of norm about
    one.

    Attributes:
      cell: the recurrent cell of every layer.
      input_size: D, the width of the input, or the number of symbols for front="embed"; None for
        that of the task, see `sized`.
      output_size: V, the width of the output; None for that of the task.
      readout: "last" for outputs [B, V], "every" for [T, B, V]; None for that of the task, or
        "last" where the sizes are given.
      depth: the number of layers.
      bidirectional: whether every layer reads in both directions.
      front: the map before the layers: None, "dense" (linear) or "embed" (a table for integer
        symbols).
      front_width: the width of the outputs of the front; None without a front.
      w_x: initialiser of the input weights, by block.
      w_h: initialiser of the recurrent weights, by block.
      b: initialiser of the biases; None for those of the cell.
      learn_initial: makes the initial states parameters.
      engine: name or instance of the engine that runs the loops.
      dtype: dtype of computation and outputs, as in `Recurrent`; stored as `jnp.dtype`.
      projection: p, the width of every layer's projected outputs, less than H; None for
        outputs h.
      checked: asserts that values are finite and in the cell's `ranges`; inside `jit` wrap the
        whole function in `chex.chexify(..., async_check=False)`. `fit` does not wrap it.
      param_dtype: dtype of the parameters and their gradients; None for float32, or `dtype` where
        that is wider.
      tied: whether the head's weights are the table of the embedding, one parameter for both; the
        outputs of the layers must be as wide as the embedding.

    Raises:
      ValueError: a size is not positive, a choice is unknown, `front_width` does not fit `front`,
        or `tied` has no embedding of V symbols; TypeError: a dtype is not a floating one.
    """

    cell: Cell
    input_size: int = None  # pyright: ignore[reportAssignmentType] # only before `sized`
    output_size: int = None  # pyright: ignore[reportAssignmentType]
    readout: Literal["last", "every"] = None  # pyright: ignore[reportAssignmentType]
    depth: int = 1
    bidirectional: bool = False
    front: Literal["dense", "embed"] | None = None
    front_width: int | None = None
    w_x: WeightInit = dataclasses.field(default=glorot())
    w_h: WeightInit = dataclasses.field(default=orthogonal())
    b: BiasInit | None = None
    learn_initial: bool = False
    engine: str | Engine = "auto"
    dtype: Any = "float32"
    projection: int | None = None
    checked: bool = False
    param_dtype: Any = None
    tied: bool = False

    def __post_init__(self):
        check_is_cell(self.cell)
        check_engine(self.engine)
        check_initializers(w_x=self.w_x, w_h=self.w_h, b=self.b)
        for name in ("input_size", "output_size"):
            if getattr(self, name) is not None:
                check_size(name, getattr(self, name))
        if None not in (self.input_size, self.output_size) and self.readout is None:
            object.__setattr__(self, "readout", "last")
        check_size("depth", self.depth)
        if self.projection is not None:
            check_projection(self.cell, self.projection)
        check_choice("readout", self.readout, (None, "last", "every"))
        check_choice("front", self.front, (None, "dense", "embed"))
        if self.front is not None:
            check_size("front_width", self.front_width)
        elif self.front_width is not None:
            raise ValueError(f"front_width must be None without a front, got {self.front_width!r}")
        if self.tied:
            self._check_tied()
        object.__setattr__(self, "dtype", _floating("dtype", self.dtype))
        if self.param_dtype is not None:
            stored = _floating("param_dtype", self.param_dtype)
            object.__setattr__(self, "param_dtype", stored)

    def _check_tied(self) -> None:
        if self.front != "embed" and not (self.front is None and self.input_size is None):
            raise ValueError(f"front must be 'embed' for tied=True, got {self.front!r}")
        sizes = self.input_size, self.output_size
        if None not in sizes and sizes[0] != sizes[1]:
            right = f"input_size, {sizes[0]}, for tied=True"
            raise ValueError(f"output_size must be {right}, got {sizes[1]}")

    @property
    def stored_dtype(self) -> Any:
        """The dtype of the parameters."""
        return stored(self.dtype, self.param_dtype)

    def init(
        self,
        key: Array,
        *,
        scale: float | Array = 1.0,
        gate_bias: Mapping[str, float | Array] | None = None,
    ) -> Any:
        """Returns the initial parameters as nested dictionaries of arrays.

        Args:
          key: a PRNG key.
          scale: factor of every initial weight of front, layers and head; biases keep theirs.
          gate_bias: block -> initial bias, in place of that of `b`, in every layer.

        Raises:
          ValueError: `gate_bias` or `b` names a block that the cell does not have.
        """
        model = self.build(nnx.Rngs(params=key), scale=scale, gate_bias=gate_bias)
        return as_lists(nnx.to_pure_dict(nnx.state(model, nnx.Param)))

    def apply(
        self,
        params: Any,
        x: ArrayLike,
        *,
        mask: ArrayLike | None = None,
        reset: ArrayLike | None = None,
        rates: Rates | None = None,
        key: Array | None = None,
    ) -> Array:
        """Returns the outputs, [B, V] or [T, B, V].

        Args:
          params: the result of `init`.
          x: [T, B, D] floats, cast to `dtype`; [T, B] integers below D for front="embed".
          mask: [T, B] bool; where False the states are held.
          reset: [T, B] bool; True where a sequence starts.
          rates: dropout and noise of the input, the layers and the head.
          key: PRNG key of all noise; None for no noise.

        Raises:
          ValueError: a shape does not fit; TypeError: a dtype does not.
        """
        return self.unroll(params, x, mask=mask, reset=reset, rates=rates, key=key)[1]

    def unroll(
        self,
        params: Any,
        x: ArrayLike,
        state: tuple[State, ...] | None = None,
        *,
        initial: tuple[State, ...] | None = None,
        mask: ArrayLike | None = None,
        reset: ArrayLike | None = None,
        rates: Rates | None = None,
        key: Array | None = None,
    ) -> tuple[tuple[State, ...], Array]:
        """Runs `apply` from a state; returns the state after x, too.

        Arguments are those of `apply` and of `SequenceModel.unroll`.

        Returns:
          The final states of the layers, and the outputs [B, V] or [T, B, V].
        """
        return self.module(params).unroll(
            self._fitting(x), state, initial=initial, mask=mask, reset=reset, key=key, rates=rates
        )

    def initial_state(self, params: Any, batch: int) -> tuple[State, ...]:
        """Returns the state at the start of a stream of `batch` rows.

        Raises:
          ValueError: the model is bidirectional.
        """
        return self.module(params).initial_state(batch)

    def stream(
        self,
        params: Any,
        state: tuple[State, ...],
        x_t: ArrayLike,
        *,
        initial: tuple[State, ...] | None = None,
        mask_t: ArrayLike | None = None,
        reset_t: ArrayLike | None = None,
    ) -> tuple[tuple[State, ...], Array]:
        """Advances a stream by one time step, as `SequenceModel.stream`.

        Args:
          params: the result of `init`.
          state: the state before this time step; at first, `initial_state(params, batch)`.
          x_t: [B, D] floats; [B] integers below D for front="embed".
          initial: the state at sequence starts, one for each layer.
          mask_t: [B] bool; where False the states are held.
          reset_t: [B] bool; True where a sequence starts.

        Returns:
          The next state and the outputs [B, V].

        Raises:
          ValueError: the model is bidirectional, or a shape does not fit; TypeError: a dtype does
            not.
        """
        return self.module(params).stream(
            state, self._fitting(x_t, "x_t", "B"), initial=initial, mask_t=mask_t, reset_t=reset_t
        )

    def module(self, params: Any) -> SequenceModel:
        """Returns the module with parameters from `init`.

        Raises:
          TypeError: `params` is no dictionary; ValueError: it is one of another model.
        """
        right = "those of `init` of this SequenceSpec"
        check_is("params", params, Mapping, f"{right}, a dictionary")
        try:
            return nnx.merge(_graph(self), as_numbered(params))
        except ValueError as error:
            raise ValueError(f"params must be {right}, got {list(params)}: {error}") from None

    def sized(self, task: Any) -> "SequenceSpec":
        """Returns the model with the sizes and the readout of a task, where it leaves them open.

        A task of symbols is read through an embedding as wide as the cell, where no front is given.
        """
        sizes = {
            name: getattr(task, name)
            for name in ("input_size", "output_size", "readout")
            if getattr(self, name) is None
        }
        if self.front is None and getattr(task, "input_kind", "numbers") == "symbols":
            width = self.cell.hidden if self.projection is None else self.projection
            sizes |= {"front": "embed", "front_width": width if self.tied else self.cell.hidden}
        return dataclasses.replace(self, **sizes)

    def on(self, platform: str) -> "SequenceSpec":
        """Returns the same model with its engine resolved for "cpu", "gpu" or "tpu".

        By default "auto" resolves for the default platform of jax. Use `on` to compile a program
        for another platform.
        """
        engine = resolve(self.engine, self.cell, platform, self.dtype)
        return dataclasses.replace(self, engine=engine)

    def build(
        self,
        rngs: nnx.Rngs,
        *,
        scale: float | Array = 1.0,
        gate_bias: Mapping[str, float | Array] | None = None,
    ) -> SequenceModel:
        """Returns the module with initial parameters, as drawn by `init`."""
        check_rngs(rngs)
        check_is("gate_bias", gate_bias, Mapping | None, "a dictionary, such as {'f': 1.0}")
        biases = gate_bias or {}
        if self.input_size is None or self.output_size is None or self.readout is None:
            raise ValueError(
                "a model needs input_size and output_size, or sized(task), before it is built"
            )
        front = self._front(rngs, scale)
        layers, width = [], self.front_width or self.input_size
        for _ in range(self.depth):
            layers.append(self._layer(width, rngs, scale, biases))
            width = layers[-1].output_size
        head = self._head(front, width, rngs, scale)
        return SequenceModel(front, Stack(layers), head, self.readout)

    def _head(self, front, width, rngs, scale):
        if not self.tied:
            return self._linear(width, self.output_size, rngs, scale)
        if self.front_width != width:
            right = f"{width}, the width of the outputs of the layers, for tied=True"
            raise ValueError(f"front_width must be {right}, got {self.front_width}")
        return TiedHead(front, self.dtype)

    def _front(self, rngs, scale):
        if self.front_width is None:
            return None
        if self.front == "dense":
            return self._linear(self.input_size, self.front_width, rngs, scale)
        unit_norm = jax.nn.initializers.normal(self.front_width**-0.5)
        return nnx.Embed(  # in the dtype of the parameters, so its gradients are summed in it
            self.input_size, self.front_width, rngs=rngs, dtype=self.stored_dtype,
            param_dtype=self.stored_dtype, embedding_init=_scaled(unit_norm, scale),
        )  # fmt: skip

    def _layer(self, width, rngs, scale, biases):
        return (Bidirectional if self.bidirectional else Recurrent)(
            self.cell, width, rngs=rngs, w_x=_scaled(self.w_x, scale),
            w_h=_scaled(self.w_h, scale), b=_overridden(self.b, biases),
            projection=self.projection, learn_initial=self.learn_initial, engine=self.engine,
            checked=self.checked, dtype=self.dtype, param_dtype=self.param_dtype,
        )  # fmt: skip

    def _linear(self, inputs, outputs, rngs, scale):
        kernel_init = _scaled(jax.nn.initializers.lecun_normal(), scale)
        return nnx.Linear(
            inputs, outputs, rngs=rngs, dtype=self.dtype, param_dtype=self.stored_dtype,
            kernel_init=kernel_init,
        )  # fmt: skip

    def _fitting(self, x, name="x", axes="T, B"):
        """Returns x in the form that the front takes; `axes` precede D."""
        x, rank = array(name, x), 1 + axes.count(",")
        first = ", time first" if rank > 1 else ""
        if self.front == "embed":
            if x.ndim != rank:
                raise ValueError(f"{name} must be symbols [{axes}]{first}, got shape {x.shape}")
            if not jnp.issubdtype(x.dtype, jnp.integer):
                raise TypeError(f"{name} must be integers for front='embed', got {x.dtype}")
            return x
        if x.ndim != rank + 1 or x.shape[-1] != self.input_size:
            want = f"[{axes}, D]{first}, with D = {self.input_size}"
            raise ValueError(f"{name} must be {want}, got shape {x.shape}")
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"{name} must be floats (front='embed' takes integers), got {x.dtype}")
        return x.astype(self.dtype)


@functools.cache
def _graph(spec: SequenceSpec) -> nnx.GraphDef:
    return nnx.graphdef(nnx.eval_shape(lambda: spec.build(nnx.Rngs(0))))


def _scaled(initializer: WeightInit, scale: float | Array) -> WeightInit:
    return lambda key, shape, dtype: initializer(key, shape, dtype) * jnp.asarray(scale, dtype)


def _overridden(b: BiasInit | None, biases: Mapping[str, Array]) -> BiasInit:
    return lambda key, cell, dtype: {**(b(key, cell, dtype) if b else {}), **biases}


def as_lists(params: Any) -> Any:
    """Returns nested parameters with lists in place of dictionaries with integer keys."""
    if not isinstance(params, dict):
        return params
    inner = {name: as_lists(value) for name, value in params.items()}
    numbered = inner and all(isinstance(name, int) for name in inner)
    return [inner[n] for n in range(len(inner))] if numbered else inner


def as_numbered(params: Any) -> Any:
    """Returns the inverse of `as_lists`, in the form that NNX takes."""
    if isinstance(params, list | tuple):
        params = dict(enumerate(params))
    if not isinstance(params, Mapping):
        return params
    return {name: as_numbered(value) for name, value in params.items()}


def _floating(name: str, dtype: Any) -> Any:
    if not jnp.issubdtype(jnp.dtype(dtype), jnp.floating):
        raise TypeError(f"{name} must be a floating one, got {jnp.dtype(dtype)}")
    return jnp.dtype(dtype)
