"""Any cell as an NNX cell, for `nnx.RNN`."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lstm_jax.cells import Cell, initial_state
from lstm_jax.engines import projected, step
from lstm_jax.nn.initializers import BiasInit, WeightInit
from lstm_jax.nn.recurrent import Recurrent
from lstm_jax.types import Array, ArrayLike, CellParams, Noise, Row, wide


class RNNCell(nnx.RNNCellBase):
    """Any cell as an NNX cell, for `nnx.RNN` and `nnx.Bidirectional`.

    The carry is the state of the cell. A noisy cell draws from a stream of its own, as
    `nnx.Dropout` does; `model.eval()` makes it take expectations.

    Attributes:
      layer: the `Recurrent` layer that owns the parameters.
      deterministic: whether a noisy cell takes expectations.
      rngs: the stream of a noisy cell, or None.
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        *,
        rngs: nnx.Rngs,
        w_x: WeightInit | None = None,
        w_h: WeightInit | None = None,
        b: BiasInit | None = None,
        projection: int | None = None,
        deterministic: bool = False,
        dtype: Any = "float32",
        param_dtype: Any = None,
    ):
        """Draws the initial parameters; arguments are those of `Recurrent`.

        A noisy cell keeps a fork of the stream `dropout` of `rngs`.
        """
        self.layer = Recurrent(
            cell, input_size, rngs=rngs, w_x=w_x, w_h=w_h, b=b, projection=projection,
            dtype=dtype, param_dtype=param_dtype,
        )  # fmt: skip
        self.deterministic = deterministic
        self.rngs = nnx.data(rngs.dropout.fork() if cell.noisy else None)

    def __call__(self, carry: Row, inputs: ArrayLike) -> tuple[Row, Array]:
        """Returns the next state, each [..., width], and the output [..., H]; inputs [..., D]."""
        layer, x = self.layer, jnp.asarray(inputs, self.layer.dtype)
        key = None if self.rngs is None or self.deterministic else self.rngs()
        return batched_step(layer.cell, layer.params, carry, x, key)

    def initialize_carry(
        self, input_shape: tuple[int, ...], rngs: Any = None, carry_init: Any = None
    ) -> Row:
        """Returns the zero state of a batch of inputs [..., D]; `rngs` are not used."""
        del rngs, carry_init
        return initial_state(self.layer.cell, input_shape[:-1], wide(self.layer.dtype))

    @property
    def num_feature_axes(self) -> int:
        """The number of axes of the input that are no batch: one."""
        return 1


def batched_step(
    cell: Cell, params: CellParams, state: Row, x_t: Array, key: Array | None = None
) -> tuple[Row, Array]:
    """Returns `step` of a batch of any axes: states [..., width] and outputs [..., H]."""
    batch = x_t.shape[:-1]
    state, x_t = _with_batch((state, x_t), (-1,))
    state, h = step(cell, params, state, x_t, noise=Noise(key))
    return _with_batch((state, projected(h, params.w_h)), batch)


def _with_batch(tree: Any, batch: tuple[int, ...]) -> Any:
    return jax.tree.map(lambda a: a.reshape(*batch, a.shape[-1]), tree)
