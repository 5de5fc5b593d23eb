"""Any cell in a Flax linen model: `RNNCell` for one time step, `Recurrent` for whole sequences.

The parameters have the names of `CellParams`: `w_x`, `w_h`, `b`, and those of the cell's theta. The
carry is the state of the cell. With a key for "dropout" a noisy cell draws, as `linen.Dropout` does
that is not deterministic; without one it takes expectations.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from lstm_jax.cells import Cell, check_is_cell, initial_state
from lstm_jax.checks import check_is
from lstm_jax.engines import Engine, unroll
from lstm_jax.nn.initializers import BiasInit, WeightInit, init
from lstm_jax.nn.rnn_cell import batched_step
from lstm_jax.types import Array, ArrayLike, CellParams, Noise, Row, wide

NOISE = "dropout"  # the name of the keys: linen's own


class RNNCell(linen.RNNCellBase):
    """Any cell as a linen cell, for `linen.RNN`, `linen.Bidirectional` and `linen.scan`.

    Attributes:
      cell: the recurrent cell.
      kernel_init: initialiser of the input weights, by block; Glorot by default.
      recurrent_kernel_init: initialiser of the recurrent weights, by block; orthogonal by default.
      bias_init: initialiser of the biases, such as `lj.initializers.chrono(100)`; those of the cell
        by default.
      dtype: dtype of inputs, which are cast to it, and of outputs; None for that of the inputs.
      param_dtype: dtype of the parameters.
    """

    cell: Cell
    kernel_init: WeightInit | None = None
    recurrent_kernel_init: WeightInit | None = None
    bias_init: BiasInit | None = None
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self):
        check_is_cell(self.cell)
        super().__post_init__()

    @linen.compact
    def __call__(self, carry: Row, inputs: ArrayLike) -> tuple[Row, Array]:
        """Returns the next state, each [..., width], and the output [..., H]; inputs [..., D]."""
        x = _cast(inputs, self.dtype)
        key = self.make_rng(NOISE) if _draws(self) else None
        return batched_step(self.cell, _params(self, x.shape[-1]), carry, x, key)

    @linen.nowrap
    def initialize_carry(self, rng: Array | None, input_shape: tuple[int, ...]) -> Row:
        """Returns the zero state of a batch of inputs [..., D]; the key is not used."""
        del rng
        return initial_state(self.cell, input_shape[:-1], wide(self.dtype or self.param_dtype))

    @property
    def num_feature_axes(self) -> int:
        """The number of axes of the input that are no batch: one."""
        return 1


class Recurrent(linen.Module):
    """A recurrent layer of any cell over whole sequences: `lj.unroll` in a linen model.

    It takes the place of `linen.RNN`, and of a `linen.scan` with resets as in recurrent policies.

    Attributes:
      cell: the recurrent cell.
      time_major: False for sequences [B, T, D], with mask and reset [B, T].
      kernel_init: initialiser of the input weights, by block; Glorot by default.
      recurrent_kernel_init: initialiser of the recurrent weights, by block; orthogonal by default.
      bias_init: initialiser of the biases; those of the cell by default.
      engine: name or instance of the engine that runs the loop.
      dtype: dtype of inputs, which are cast to it, and of outputs; None for that of the inputs.
      param_dtype: dtype of the parameters.
    """

    cell: Cell
    time_major: bool = True
    kernel_init: WeightInit | None = None
    recurrent_kernel_init: WeightInit | None = None
    bias_init: BiasInit | None = None
    engine: str | Engine = "auto"
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self):
        check_is_cell(self.cell)
        super().__post_init__()

    @linen.compact
    def __call__(
        self,
        carry: Row | None,
        x: ArrayLike | tuple[ArrayLike, ArrayLike],
        *,
        mask: ArrayLike | None = None,
        reset: ArrayLike | None = None,
    ) -> tuple[Row, Array]:
        """Runs the layer over time.

        Args:
          carry: the state before the call, each [B, width]; None for zeros.
          x: [T, B, D] inputs; or the pair of them and `reset`, as recurrent policies pass it.
          mask: [T, B] bool; where False the state is held and the output is zero.
          reset: [T, B] bool; where True the state becomes zero before the time step.

        Returns:
          The final state, each [B, width], and the outputs [T, B, H].

        Raises:
          ValueError: `reset` is given twice, or a shape does not fit; TypeError: a dtype does not.
        """
        if isinstance(x, tuple):
            if reset is not None:
                raise ValueError("reset must be None where x is a pair (inputs, reset)")
            x, reset = x
        inputs = self._turned(_cast(x, self.dtype))
        mask, reset = self._turned(mask), self._turned(reset)
        keys = jax.random.split(self.make_rng(NOISE), len(inputs)) if _draws(self) else None
        carry, h = unroll(
            self.cell, _params(self, inputs.shape[-1]), inputs, carry,
            mask=mask, reset=reset, noise=Noise(keys), engine=self.engine,
        )  # fmt: skip
        return carry, self._turned(h)

    @linen.nowrap
    def _turned(self, sequence: Any) -> Any:
        """Returns a sequence time first, or one that is time first as the caller has it."""
        if self.time_major or sequence is None:
            return sequence
        return jnp.swapaxes(jnp.asarray(sequence), 0, 1)

    @linen.nowrap
    def initialize_carry(self, batch: int) -> Row:
        """Returns the zero state, each [batch, width]."""
        return initial_state(self.cell, batch, wide(self.dtype or self.param_dtype))


def to_tree(params: CellParams) -> dict[str, Array]:
    """Returns the parameters of `RNNCell` and `Recurrent`, by name, from `CellParams`."""
    named = {"w_x": params.w_x, "w_h": params.w_h, "b": params.b, **params.theta._asdict()}
    return {name: value for name, value in named.items() if value is not None}


def from_tree(cell: Cell, tree: Mapping[str, Array]) -> CellParams:
    """Returns `CellParams` from the parameters of an `RNNCell` or a `Recurrent`.

    Args:
      cell: the recurrent cell.
      tree: `variables["params"]` of the module.

    Raises:
      KeyError: a parameter is missing; TypeError: `cell` is no cell.
    """
    check_is_cell(cell)
    check_is("tree", tree, Mapping, 'variables["params"] of the module')
    theta = cell.Theta({name: tree[name] for name in _theta(cell)})
    return CellParams(tree["w_x"], tree["w_h"] if cell.h_blocks else None, tree["b"], theta)


def _params(module: Any, input_size: int) -> CellParams:
    """Returns the parameters that `module` owns, each drawn from a key of its own."""
    cell = module.cell

    def drawn(key, name):
        params = init(
            cell, key, input_size, w_x=module.kernel_init, w_h=module.recurrent_kernel_init,
            b=module.bias_init, dtype=module.param_dtype,
        )  # fmt: skip
        return to_tree(params)[name]

    names = ("w_x", "b", *(("w_h",) if cell.h_blocks else ()), *_theta(cell))
    return from_tree(cell, {name: module.param(name, drawn, name) for name in names})


def _theta(cell: Cell) -> tuple[str, ...]:
    """Returns the names of the cell's small parameters."""
    return tuple(jax.eval_shape(lambda: dict(cell.init_theta(jax.random.key(0)))))


def _draws(module: Any) -> bool:
    return module.cell.noisy and module.has_rng(NOISE)


def _cast(x: ArrayLike, dtype: Any) -> Array:
    if x is None:
        raise TypeError(
            "x must follow the carry, which is None for zeros: call (carry, x), got None"
        )
    x = jnp.asarray(x)
    return x if dtype is None else x.astype(dtype)
