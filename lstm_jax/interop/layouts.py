"""Layouts of the parameters of a recurrent layer in other libraries.

A layout is a row of `Tensor`s, each with the name of a tensor of theirs and the blocks of ours that
it packs, in their order. `read` and `write` convert by it. docs/interop.md has the same as tables.
"""

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax.cells import GRU, LSTM, RNN, Cell, check_is_cell
from lstm_jax.checks import check_is
from lstm_jax.interop.checking import check, exact
from lstm_jax.types import Array, CellParams


class Tensor(NamedTuple):
    """A tensor of another library, in our words.

    Attributes:
      name: what they call it.
      part: the field of `CellParams` that it belongs to: "w_x", "w_h" or "b". A block of "b" that
        two tensors hold is their sum.
      blocks: the blocks that it packs, in their order.
      rows: a matrix that packs blocks as rows, and multiplies from the left, as torch's do.
    """

    name: str
    part: str
    blocks: tuple[str, ...]
    rows: bool = False


Layout = tuple[Tensor, ...]

IFGO, IOFG, RZX, RZH, ZRX, ZRH, H = (
    tuple(blocks.split())
    for blocks in ("i f g o", "i o f g", "r z nx", "r z nh", "z r nx", "z r nh", "h")
)


def _onnx(x: tuple[str, ...], h: tuple[str, ...]) -> Layout:
    weights = Tensor("W", "w_x", x, rows=True), Tensor("R", "w_h", h, rows=True)
    return (*weights, Tensor("Wb", "b", x), Tensor("Rb", "b", h))


def _torch(x: tuple[str, ...], h: tuple[str, ...]) -> Layout:
    weights = Tensor("weight_ih", "w_x", x, rows=True), Tensor("weight_hh", "w_h", h, rows=True)
    return (*weights, Tensor("bias_ih", "b", x), Tensor("bias_hh", "b", h))


def _keras(x: tuple[str, ...], h: tuple[str, ...], *biases: Tensor) -> Layout:
    return Tensor("kernel", "w_x", x), Tensor("recurrent_kernel", "w_h", h), *biases


def _dense(name: str, part: str, blocks: tuple[str, ...], bias: bool) -> Layout:
    """Returns a dense layer of Flax: a kernel, and a bias or none."""
    kernel = Tensor(f"{name}.kernel", part, blocks)
    return (kernel, Tensor(f"{name}.bias", "b", blocks)) if bias else (kernel,)


def _dense_each(names: str, part: str, blocks: tuple[str, ...], biased: tuple[str, ...]) -> Layout:
    """Returns a dense layer of Flax for each block, with a bias if the block is `biased`."""
    each = zip(names.split(), blocks, strict=True)
    return sum((_dense(name, part, (block,), block in biased) for name, block in each), ())


TORCH: dict[str, Layout] = {
    "LSTM": _torch(IFGO, IFGO),
    "GRU": _torch(RZX, RZH),
    "RNN": _torch(H, H),
}
ONNX: dict[str, Layout] = {  # `Wb` and `Rb` are the halves of its tensor `B`
    "LSTM": _onnx(IOFG, IOFG),
    "GRU": _onnx(ZRX, ZRH),
    "RNN": _onnx(H, H),
}
KERAS: dict[str, Layout] = {
    "LSTM": _keras(IFGO, IFGO, Tensor("bias", "b", IFGO)),
    # One bias [2, 3H] there: of the input product and of the recurrent one.
    "GRU": _keras(ZRX, ZRH, Tensor("bias[0]", "b", ZRX), Tensor("bias[1]", "b", ZRH)),
    "RNN": _keras(H, H, Tensor("bias", "b", H)),
}
LINEN: dict[str, Layout] = {
    "LSTM": _dense_each("ii if ig io", "w_x", IFGO, ())
    + _dense_each("hi hf hg ho", "w_h", IFGO, IFGO),
    "GRU": _dense_each("ir iz in", "w_x", RZX, RZX) + _dense_each("hr hz hn", "w_h", RZH, ("nh",)),
    "RNN": _dense("i", "w_x", H, True) + _dense("h", "w_h", H, False),
}
NNX: dict[str, Layout] = {
    "LSTM": _dense("dense_i", "w_x", IFGO, False) + _dense("dense_h", "w_h", IFGO, True),
    # Nothing adds to the candidate's recurrent product: `nh` has no bias there.
    "GRU": _dense("dense_i", "w_x", RZX, True) + _dense("dense_h", "w_h", RZH, False),
    "RNN": _dense("dense_i", "w_x", H, True) + _dense("dense_h", "w_h", H, False),
}
# The other LSTM of NNX is linen's, but for the name of a Python keyword.
NNX_LSTM_CELL: Layout = tuple(
    tensor._replace(name=tensor.name.replace("if.", "if_.")) for tensor in LINEN["LSTM"]
)


def kind(cell: Cell) -> str:
    """Returns "LSTM", "GRU" or "RNN": the cells that convert, those that all libraries have.

    Raises:
      TypeError: the cell is another.
    """
    check_is_cell(cell)
    own = RNN(cell.hidden, cell.activation) if isinstance(cell, RNN) else RNN(cell.hidden)
    convert = {"LSTM": LSTM(cell.hidden), "GRU": GRU(cell.hidden), "RNN": own}
    for name, plain in convert.items():
        if cell == plain:
            return name
    wanted = ", ".join(map(str, convert.values()))
    raise TypeError(f"cell must be one of those that convert, {wanted}, got {cell}")


def present(layout: Layout, tensors: Mapping[str, Array | np.ndarray]) -> Layout:
    """Returns the layout without its biases where `tensors` has none of them, as a layer may."""
    if any(tensor.name in tensors for tensor in layout if tensor.part == "b"):
        return layout
    return tuple(tensor for tensor in layout if tensor.part != "b")


def read(
    source: str,
    layout: Layout,
    cell: Cell,
    tensors: Mapping[str, Array | np.ndarray],
    feedback: int | None = None,
) -> CellParams:
    """Returns our parameters from a library's tensors; it can be differentiated.

    Args:
      source: what the tensors are called in errors.
      layout: what the library makes of the cell.
      cell: the cell.
      tensors: those of the layout and no others, of one dtype. A bias that the layout does not
        have is zero.
      feedback: the rows of `w_h`; H by default.

    Raises:
      ValueError: a tensor is missing, unexpected or of another shape or dtype: the first is named.
    """
    check(source, tensors, _shapes(layout, cell, tensors, feedback or cell.hidden))
    found: dict[tuple[str, str], Array] = {}
    for tensor in layout:
        packed = exact(tensor.name, tensors[tensor.name])
        for name, block in split(cell, tensor.blocks, packed.T if tensor.rows else packed).items():
            at = (tensor.part, name)
            found[at] = found[at] + block if at in found else block
    w_x = jnp.concatenate([found["w_x", name] for name in cell.x_blocks], axis=1)
    w_h = jnp.concatenate([found["w_h", name] for name in cell.h_blocks], axis=1)
    zeros = {name: jnp.zeros((cell.width(name),), w_x.dtype) for name in cell.gates}
    b = jnp.concatenate([found.get(("b", name), zeros[name]) for name in cell.gates])
    return CellParams(w_x, w_h, b, cell.Theta({}))


def write(
    target: str, layout: Layout, cell: Cell, params: CellParams, feedback: int | None = None
) -> dict[str, np.ndarray]:
    """Returns a library's tensors, as NumPy arrays, from our parameters.

    Where they add two biases, the first holds ours and the second is zero. `target` is the
    library's layer, for errors; other arguments are those of `read`.

    Raises:
      ValueError: a parameter is of another shape or dtype, `w_h` is a pair, or a bias that is not
        zero has no place there.
    """
    check_is("params", params, CellParams, "the CellParams of one layer")
    if isinstance(params.w_h, tuple):
        raise ValueError(f"w_h must be one matrix: {target} has no projection, got a pair (P, U)")
    ours = tuple(
        Tensor(part, part, blocks)
        for part, blocks in (("w_x", cell.x_blocks), ("w_h", cell.h_blocks), ("b", cell.gates))
    )
    arrays = {part: np.asarray(getattr(params, part)) for part, *_ in ours}
    check("params", arrays, _shapes(ours, cell, arrays, feedback or cell.hidden))
    left = {
        (part, name): block
        for _, part, blocks, _ in ours
        for name, block in split(cell, blocks, arrays[part]).items()
    }
    tensors = {}
    for tensor in layout:
        zeros = {name: np.zeros((cell.width(name),), params.b.dtype) for name in tensor.blocks}
        blocks = [left.pop((tensor.part, name), zeros[name]) for name in tensor.blocks]
        packed = np.concatenate(blocks, axis=-1)
        tensors[tensor.name] = np.ascontiguousarray(packed.T if tensor.rows else packed)
    for (part, name), block in left.items():
        if block.any():
            raise ValueError(f"{part} of block {name!r} must be zero: {target} has no place for it")
    return tensors


def split(cell: Cell, blocks: tuple[str, ...], packed: Any) -> dict[str, Any]:
    """Returns the blocks of columns of a packed array, by name."""
    ends = itertools.accumulate(cell.width(name) for name in blocks)
    return {b: packed[..., end - cell.width(b) : end] for b, end in zip(blocks, ends, strict=True)}


def _shapes(layout, cell, tensors, feedback) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns what the tensors must be; width of input and dtype are those of the first."""
    first = tensors.get(layout[0].name, np.zeros((0, 0)))
    D = (first.shape or (0,))[-1 if layout[0].rows else 0]
    heads = {"w_x": (D,), "w_h": (feedback,), "b": ()}
    wanted = {}
    for tensor in layout:
        shape = (*heads[tensor.part], sum(map(cell.width, tensor.blocks)))
        wanted[tensor.name] = jax.ShapeDtypeStruct(
            shape[::-1] if tensor.rows else shape, first.dtype
        )
    return wanted
