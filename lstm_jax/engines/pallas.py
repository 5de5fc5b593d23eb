"""The fused engine: the whole time loop in one kernel, with recurrent weights on chip.

`fused` computes the loop. It is imported at its first use, since the import of Pallas takes long.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lstm_jax.cells import Cell, feedback_width
from lstm_jax.engines.inputs import Inputs
from lstm_jax.engines.masking import emitted
from lstm_jax.engines.pointwise import unsupported
from lstm_jax.engines.tiles import Tiles
from lstm_jax.engines.uniform import gather_state, spread_noise, spread_params, spread_state
from lstm_jax.types import Row

KB = 1024
ROWS = 16  # fewest rows of a matrix product on a GPU, and of a bfloat16 tile on a TPU
LANES = 128  # lanes of a TPU


@dataclasses.dataclass(frozen=True)
class Pallas:
    """One kernel for the whole loop: Triton on a GPU, Mosaic on a TPU.

    The recurrent weights have the dtype of x, float32 or bfloat16, and must fit on chip in it.
    Pre-activations pass to and from the kernel in the same dtype. Sums and states are
    float32. Under `vmap` over parameters, trials are one more axis of the kernel's grid.

    Attributes:
      platform: "gpu" or "tpu", the platform of the kernel; with "cpu" no cell is supported.
      interpret: whether the kernel runs as ordinary JAX on any platform, slowly, for tests.
      tiles: the tiles on a GPU; None for those of the table `engines/tiles.json`.
    """

    platform: str
    interpret: bool = False
    tiles: Tiles | None = None

    def loop(self, cell: Cell, emit: Callable[[Row], Any], inputs: Inputs) -> tuple[Row, Any]:
        """Returns the final state, and `emit` of every state [T, B, ...]."""
        return run(self, cell, emit, inputs)

    def refuses(self, cell: Cell, dtype: Any = None) -> str | None:
        """Returns why it cannot run `cell` on x of `dtype`, or None if it can.

        The default dtype is bfloat16.
        """
        dtype = jnp.dtype(jnp.bfloat16 if dtype is None else dtype)
        if self.platform not in ("gpu", "tpu"):
            return f"it is a kernel for a gpu or a tpu, not for a {self.platform}"
        if self.platform == "gpu" and not _has_triton():
            return f"it needs the Triton backend of Pallas, which jax {jax.__version__} lacks"
        if dtype not in (jnp.float32, jnp.bfloat16) + (jnp.float64,) * self.interpret:
            return f"it takes x of float32 or bfloat16, not of {dtype}"
        cell = cell.uniform()
        return unsupported(cell, self.width(cell)) or self._too_large(cell, dtype)

    def width(self, cell: Cell) -> int:
        """Returns H rounded up to the width of the kernel's matrices."""
        if self.platform == "gpu":
            return max(ROWS, 1 << (cell.hidden - 1).bit_length())
        return -(-cell.hidden // LANES) * LANES

    def _too_large(self, cell: Cell, dtype: Any) -> str | None:
        """Returns why the recurrent weights of a uniform cell do not fit on chip.

        They are square matrices, one for each pair of a block that reads the state and a vector of
        the feedback, of the width of the kernel. The limits are

            GPU   128 KB in 16 bits (the LSTM's of H = 128), 48 KB in float32 (of H = 32)
            TPU   4 MB (the LSTM's of H = 512 in float32)

        Those of the GPU were measured: they fit into the 227 KB of shared memory of one
        multiprocessor of an H100. That of the TPU leaves space for chunks in 16 MB of VMEM.
        """
        vectors = feedback_width(cell) // cell.hidden
        count, width = len(cell.h_blocks) * vectors, self.width(cell)
        limit = {"gpu": 128 if dtype.itemsize == 2 else 48, "tpu": 4 * KB}[self.platform]
        if (size := count * width * width * dtype.itemsize) <= limit * KB:
            return None
        square = f"{count} recurrent matrices of {width} x {width}"
        return f"its {square} take {size // KB} KB in {dtype}, and {limit} KB fit on chip"


def run(engine: Any, cell: Cell, emit: Callable[[Row], Any], inputs: Inputs) -> tuple[Row, Any]:
    """Returns the result of `loop` of an engine with fused kernels."""
    T, B, _ = inputs.x.shape
    if not T * B:
        empty = jax.tree.map(lambda s: jnp.zeros((T, *s.shape), s.dtype), inputs.state)
        return inputs.state, jax.vmap(emit)(empty)
    uniform = cell.uniform()
    from lstm_jax.engines import fused

    both: Any = fused.run_loop(
        engine, uniform, inputs if uniform == cell else _spread(cell, inputs)
    )
    final, states = both if uniform == cell else (gather_state(cell, row) for row in both)
    return final, emitted(emit, states, inputs.reset)


def _has_triton() -> bool:
    from lstm_jax.engines import fused

    return fused.triton is not None


def _spread(cell: Cell, inputs: Inputs) -> Inputs:
    """Returns the equivalent inputs of the uniform cell."""
    return inputs._replace(
        params=spread_params(cell, inputs.params), state=spread_state(cell, inputs.state),
        initial=spread_state(cell, inputs.initial), noise=spread_noise(cell, inputs.noise),
    )  # fmt: skip
