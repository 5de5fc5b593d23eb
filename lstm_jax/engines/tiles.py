"""The tiles of the fused engine on a GPU, by device, dtype and width.

`tiles.json` holds the table. `scripts/gpu tiles` measures it on a device.
"""

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp

PATH = Path(__file__).with_name("tiles.json")


class Tiles(NamedTuple):
    """How a kernel covers a batch on a GPU; the defaults were measured on an H100.

    Attributes:
      rows: rows of the batch in one thread block, a power of two of at least 16.
      warps: warps of one thread block.
      prefetch: whether the loop reads the inputs of a time step during the one before it.
    """

    rows: int = 16
    warps: int = 8
    prefetch: bool = True


@functools.cache
def table() -> dict[str, Any]:
    """Returns the fields of `Tiles` by device, dtype and width."""
    return json.loads(PATH.read_text(encoding="utf-8"))


def measured(device: str, width: int, dtype: Any) -> Tiles:
    """Returns the tiles of a kernel of `width` units; the defaults where none were measured."""
    by_width = table().get(device, {}).get(jnp.dtype(dtype).name, {})
    return Tiles(**by_width.get(str(width), {}))
