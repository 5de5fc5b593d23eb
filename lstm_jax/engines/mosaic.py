"""The fused engine for GPUs of the Hopper generation, on the Mosaic GPU backend of Pallas.

`hopper` has the kernels and `fused` the loop around them. Both are imported at their first use,
since the import of Pallas takes long.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.cells import Cell, feedback_width
from lstm_jax.engines.inputs import Inputs
from lstm_jax.engines.lowerable import MISSING
from lstm_jax.engines.pallas import KB, run
from lstm_jax.engines.pointwise import reductions, uses
from lstm_jax.engines.pointwise import unsupported as not_pointwise
from lstm_jax.types import Row

OLDEST = (0, 12)  # of jax: earlier ones have another interface, and no interpreter of it
ROWS = 64  # rows of a tile: those of one product of a warpgroup
UNITS = 32  # units of a warpgroup: their gates and states fill its registers
GROUPS = 4  # most warpgroups of a block, for the same reason
BLOCKS = 16  # most blocks of a cluster; above 8 not every GPU has room for one
FULL = ("high", "highest", "float32", "F32_F32_F32")  # precisions above that of TF32
COLUMNS = 256  # most columns of one product
SHARED = 227 * KB  # shared memory of a block
SPARE = 3 * KB  # what barriers and reductions may take of it


class Plan(NamedTuple):
    """How a layer is divided; one warpgroup owns `units` units with all their gates.

    Attributes:
      units: units of a warpgroup.
      groups: warpgroups of a block, which share what they feed back in its shared memory.
      blocks: blocks of a cluster, of one warpgroup each, which share it through global memory.
    """

    units: int
    groups: int
    blocks: int

    @property
    def owners(self) -> int:
        """The number of warpgroups, so that H = units * owners."""
        return self.groups * self.blocks

    def chunks(self, product: "Product") -> int:
        """Returns how many warpgroups' operands are in shared memory at a time, 1 or more."""
        if self.blocks == 1 or not product.operands:
            return self.groups
        left = SHARED - SPARE - self._weights(product) - self._chunk(product)
        return max(1, min(self.owners, left // self._chunk(product)))

    def shared_memory(self, product: "Product") -> int:
        """Returns the bytes of shared memory of a block, without barriers."""
        staged = self.chunks(product) + (self.blocks > 1)
        return self._weights(product) + staged * self._chunk(product)

    def _weights(self, product: "Product") -> int:
        H = self.units * self.owners
        return self.groups * self.units * product.outputs * product.operands * H * product.itemsize

    def _chunk(self, product: "Product") -> int:
        return product.operands * ROWS * self.units * product.itemsize


class Product(NamedTuple):
    """A recurrent product: `operands` vectors of H units times matrices give `outputs` of them."""

    outputs: int
    operands: int
    itemsize: int


@dataclasses.dataclass(frozen=True)
class Mosaic:
    """One `wgmma` kernel for the whole loop on a Hopper GPU, up to the width of a cluster.

    Like `Pallas`, it runs any pointwise cell with masks, resets, carried states and noise. Trials
    under `vmap` are an axis of the kernel's grid. x is bfloat16, or float32, whose products are
    TF32 on a device. Sums and states are float32. A tile has 64 rows.

    Attributes:
      platform: "gpu"; with any other, no cell is supported.
      interpret: whether Pallas simulates the kernel on any platform, slowly, for tests. It
        simulates shared memory, barriers and asynchronous copies, and reports races.
      cluster: whether every 32 units have a thread block of their own; by default only if one block
        cannot hold the layer.
    """

    platform: str
    interpret: bool = False
    cluster: bool | None = None

    def loop(self, cell: Cell, emit: Callable[[Row], Any], inputs: Inputs) -> tuple[Row, Any]:
        """Returns the final state, and `emit` of every state [T, B, ...]."""
        return run(self, cell, emit, inputs)

    def refuses(self, cell: Cell, dtype: Any = None) -> str | None:
        """Returns why it cannot run `cell` on x of `dtype`, or None if it can.

        The default dtype is bfloat16.
        """
        dtype = jnp.dtype(jnp.bfloat16 if dtype is None else dtype)
        if self.platform != "gpu":
            return f"it is a kernel for a gpu, not for a {self.platform}"
        if jax.__version_info__ < OLDEST:
            return f"it needs jax {'.'.join(map(str, OLDEST))} or later, not {jax.__version__}"
        if not self.interpret and (other := _other_generation()):
            return f"it needs a GPU of compute capability 9.0, not {other}"
        if dtype not in (jnp.float32, jnp.bfloat16):
            return f"it takes x of float32 or bfloat16, not of {dtype}"
        config: Any = jax.config
        precision = config.jax_default_matmul_precision
        if dtype == jnp.float32 and precision in FULL and not self.interpret:
            return f"its products of float32 are TF32's, and {precision} precision is asked for"
        cell = cell.uniform()
        if reason := not_pointwise(cell, self.width(cell)):
            return reason
        if missing := sorted(MISSING & uses(cell)):
            return f"its equations use {', '.join(missing)}, which Mosaic GPU does not have"
        return self._too_large(cell, dtype)

    def width(self, cell: Cell) -> int:
        """Returns H rounded up to whole warpgroups."""
        return cell.hidden if reductions(cell) else -(-cell.hidden // UNITS) * UNITS

    def shared_memory(self, cell: Cell, dtype: Any) -> int:
        """Returns the bytes of shared memory that a block of the larger kernel takes."""
        cell = cell.uniform()
        plan = self.plan(cell, dtype)
        return max(map(plan.shared_memory, products(cell, dtype)))

    def plan(self, cell: Cell, dtype: Any) -> Plan:
        """Returns how a layer is divided; it may not fit, see `refuses`."""
        if reductions(cell):  # a warpgroup adds up its own units only
            return Plan(cell.hidden, 1, 1)
        owners = -(-cell.hidden // UNITS)
        block = Plan(UNITS, owners, 1)
        fits = owners <= GROUPS and all(_fits(block, p) for p in products(cell, dtype))
        if self.cluster or (self.cluster is None and not fits):
            return Plan(UNITS, 1, owners)
        return block

    def _too_large(self, cell: Cell, dtype: Any) -> str | None:
        plan, both = self.plan(cell, dtype), products(cell, dtype)
        if plan.units not in (16, 32, 64):
            return f"its units are dependent, and H = {plan.units} is not 16, 32 or 64"
        if (columns := max(p.outputs for p in both) * plan.units) > COLUMNS:
            return f"its product has {columns} columns a warpgroup, of {COLUMNS}"
        if plan.groups > GROUPS:
            return f"H = {cell.hidden} takes {plan.groups} warpgroups, and a block has {GROUPS}"
        if plan.blocks > BLOCKS:
            return f"H = {cell.hidden} takes {plan.blocks} thread blocks, and a cluster {BLOCKS}"
        if all(_fits(plan, p) for p in both):
            return None
        size = max(map(plan.shared_memory, both)) // KB
        return f"it takes {size} KB of shared memory a block in {dtype}, of {SHARED // KB} KB"


def products(cell: Cell, dtype: Any) -> tuple[Product, Product]:
    """Returns the recurrent products of a uniform cell, forward and backward."""
    blocks, itemsize = len(cell.h_blocks), jnp.dtype(dtype).itemsize
    vectors = feedback_width(cell) // cell.hidden if blocks else 0
    return Product(blocks, vectors, itemsize), Product(vectors, blocks, itemsize)


def _fits(plan: Plan, product: Product) -> bool:
    return plan.shared_memory(product) <= SHARED - SPARE


def _other_generation() -> str | None:
    """Returns the compute capability of the default GPU unless it is 9.0; None without a GPU."""
    device = jax.local_devices()[0]
    if device.platform != "gpu":
        return None
    capability = str(device.compute_capability)
    return None if capability == "9.0" else capability
