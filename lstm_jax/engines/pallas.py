"""The fused engine: the whole time loop in one kernel, the recurrent weights on chip.

What reads the input only is done outside, by XLA, for all instants at once: the input product, and
in the backward pass the pre-activations, rebuilt from the saved states, and the weight gradients,
each of them one matrix product over all instants. The kernels (`kernels`) hold what must be done
one instant after another. What is no power of two, or no whole tile, is filled up around them.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas import tpu

from lstm_jax.cells import Cell, feedback_width
from lstm_jax.engines import kernels
from lstm_jax.engines.inputs import Inputs
from lstm_jax.engines.masking import emitted, reached, restart, zero_unless
from lstm_jax.engines.pointwise import strange
from lstm_jax.engines.products import (
    add_bias,
    assemble,
    dot,
    drawn,
    fed_back,
    preactivations,
    split,
)
from lstm_jax.engines.uniform import gather_state, spread_noise, spread_params, spread_state
from lstm_jax.types import Array, CellParams, Noise, Row, wide

try:
    from jax.experimental.pallas import triton
except ImportError:  # jax >= 0.11 deprecates it and says that it will go
    triton = None

KB = 1024
ROWS = 16  # the fewest rows that a GPU's matrix product takes, and a tile of bfloat16 on a TPU
LANES = 128  # of a TPU
TILE = 128  # the most rows of a tile on a TPU
CHUNK = 32  # the most instants of a chunk on a TPU
BUFFERS = 6 * 1024 * KB  # of a chunk on a TPU, beside the weights


@dataclasses.dataclass(frozen=True)
class Pallas:
    """One kernel for the whole loop, by Triton on a GPU and by Mosaic on a TPU.

    The recurrent weights are kept in the dtype of x, float32 or bfloat16, and must fit on chip in
    it, see `fits`. So are the pre-activations, between the products over all instants and the
    kernel; sums and states are float32. Under `vmap` over parameters, trials are one more axis of
    the kernel's grid.

    Attributes:
      platform: "gpu" or "tpu", whose kernel it is; it runs nothing on a "cpu".
      interpret: whether the kernel is run as ordinary JAX, slowly, anywhere: for tests.
    """

    platform: str
    interpret: bool = False

    def loop(self, cell: Cell, emit: Callable[[Row], Any], inputs: Inputs) -> tuple[Row, Any]:
        """Returns the final state and what `emit` makes of every state [T, B, ...]."""
        T, B, _ = inputs.x.shape
        if not T * B:
            nothing = jax.tree.map(lambda s: jnp.zeros((T, *s.shape), s.dtype), inputs.state)
            return inputs.state, jax.vmap(emit)(nothing)
        uniform = cell.uniform()
        both: Any = _loop(self, uniform, inputs if uniform == cell else _spread(cell, inputs))
        final, states = both if uniform == cell else (gather_state(cell, row) for row in both)
        return final, emitted(emit, states, inputs.reset)

    def refuses(self, cell: Cell, dtype: Any = None) -> str | None:
        """Returns why it cannot run `cell` on x of `dtype`, bfloat16 by default; None if it can."""
        dtype = jnp.dtype(jnp.bfloat16 if dtype is None else dtype)
        if self.platform not in ("gpu", "tpu"):
            return f"it is a kernel for a gpu or a tpu, not for a {self.platform}"
        if self.platform == "gpu" and triton is None:
            return f"it needs the Triton backend of Pallas, which jax {jax.__version__} lacks"
        if dtype not in (jnp.float32, jnp.bfloat16) + (jnp.float64,) * self.interpret:
            return f"it takes x of float32 or bfloat16, not of {dtype}"
        cell = cell.uniform()
        return strange(cell, self._width(cell)) or self._too_large(cell, dtype)

    def fits(self, cell: Cell, dtype: Any) -> bool:
        """Says whether the recurrent weights of `cell.uniform()` fit on chip in `dtype`.

        There is one square matrix for each block that reads the state, times the vectors that are
        fed back, as wide as H rounded up: to a power of two, 16 or more, on a GPU, and to a
        multiple of 128 on a TPU. They may take

            GPU   128 KB in 16 bits (the LSTM's of H = 128), 48 KB in float32 (of H = 32)
            TPU   4 MB (the LSTM's of H = 512 in float32)
        """
        return self._too_large(cell.uniform(), jnp.dtype(dtype)) is None

    def _width(self, cell: Cell) -> int:
        if self.platform == "gpu":
            return max(ROWS, 1 << (cell.hidden - 1).bit_length())
        return _up(cell.hidden, LANES)

    def _too_large(self, cell: Cell, dtype: Any) -> str | None:
        # The GPU's limits are what a prototype was seen to fit into the 227 KB of shared memory of
        # one multiprocessor of an H100; the TPU's leaves room for chunks in 16 MB of VMEM.
        vectors = feedback_width(cell) // cell.hidden
        count, width = len(cell.h_blocks) * vectors, self._width(cell)
        limit = {"gpu": 128 if dtype.itemsize == 2 else 48, "tpu": 4 * KB}[self.platform]
        if (size := count * width * width * dtype.itemsize) <= limit * KB:
            return None
        square = f"{count} recurrent matrices of {width} x {width}"
        return f"its {square} take {size // KB} KB in {dtype}, and {limit} KB fit on chip"


class _Frame(NamedTuple):
    """The sizes that a kernel sees: time, rows and units filled up."""

    T: int
    B: int
    H: int
    schedule: kernels.Schedule


def _spread(cell: Cell, inputs: Inputs) -> Inputs:
    """Returns the inputs as they are for the uniform cell."""
    return inputs._replace(
        params=spread_params(cell, inputs.params), state=spread_state(cell, inputs.state),
        initial=spread_state(cell, inputs.initial), noise=spread_noise(cell, inputs.noise),
    )  # fmt: skip


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _loop(engine: Pallas, cell: Cell, inputs: Inputs):
    return _forward(engine, cell, inputs)


def _loop_fwd(engine, cell, inputs):
    final, states = _forward(engine, cell, inputs)
    return (final, states), (inputs, states)


def _loop_bwd(engine: Pallas, cell: Cell, residuals, cotangents):
    inputs, states = residuals
    d_final, d_states = cotangents
    inputs = inputs._replace(x=zero_unless(inputs.mask, inputs.x))
    if inputs.reset is not None:  # a step that is not read starts afresh, at zero
        read = reached(inputs.reset, d_final, d_states)
        inputs = inputs._replace(x=zero_unless(read, inputs.x), reset=inputs.reset | ~read)
    params, x, state, initial, _, reset, noise = inputs
    T, B, D = x.shape
    previous = jax.tree.map(lambda s0, s: jnp.concatenate([s0[None], s[:-1]]), state, states)
    start = restart(reset, initial, previous)
    feedback = jax.vmap(lambda s: fed_back(cell, s, noise.keep))(start)
    packed, product_back = jax.vjp(
        lambda weights, x: preactivations(
            cell, weights, x.reshape(T * B, D), feedback.reshape(T * B, -1)
        ),
        params._replace(theta=()),
        x,
    )
    d_packed, d_state, d_theta, d_initial = _kernel_back(
        engine, cell, inputs, packed.reshape(T, B, -1), start, d_states, d_final
    )
    d_params, d_x = product_back(d_packed.astype(packed.dtype).reshape(T * B, -1))
    d_params = d_params._replace(theta=d_theta)
    return (Inputs(d_params, d_x, d_state, d_initial, None, None, Noise()),)


_loop.defvjp(_loop_fwd, _loop_bwd)


def _forward(engine: Pallas, cell: Cell, inputs: Inputs) -> tuple[Row, Row]:
    """Returns the final state and the states after every instant."""
    params, x, *_ = inputs
    T, B, D = x.shape
    from_x = dot(x.reshape(T * B, D), params.w_x, x.dtype)
    none = jnp.zeros((T * B, sum(cell.width(g) for g in cell.h_blocks)), from_x.dtype)
    packed = add_bias(assemble(cell, from_x, none), params.b).reshape(T, B, -1)
    draws = _draws(cell, inputs)
    frame = _frame(engine, cell, x, draws)
    mask, reset, keep = _circumstances(frame, inputs)
    state, initial = (_fill(row, (frame.B, frame.H)) for row in (inputs.state, inputs.initial))
    final, states = kernels.forward(
        cell,
        frame.schedule,
        kernels.Forward(
            _fill_packed(cell, frame, packed, x.dtype), _weights(cell, params, frame, x.dtype),
            _theta(cell, params, frame), state, None if reset is None else initial,
            keep, _fill(draws, (frame.T, frame.B, frame.H)), mask, reset,
        ),
    )  # fmt: skip
    return _cut(final, (B, cell.hidden)), _cut(states, (T, B, cell.hidden))


def _kernel_back(engine, cell, inputs, packed, start, d_states, d_final):
    """Returns d_packed [T, B, G] and the gradients of state, theta and initial."""
    params, x, *_ = inputs
    T, B, _ = x.shape
    draws = _draws(cell, inputs)
    frame = _frame(engine, cell, x, draws)
    mask, reset, keep = _circumstances(frame, inputs)
    size = (frame.T, frame.B, frame.H)
    weights = jax.tree.map(jnp.transpose, _weights(cell, params, frame, x.dtype))
    given = kernels.Backward(
        _fill_packed(cell, frame, packed, x.dtype), _fill(start, size),
        _fill(d_states, size, "constant"), _fill(d_final, size[1:], "constant"),
        weights, _theta(cell, params, frame), keep, _fill(draws, size), mask, reset,
    )  # fmt: skip
    d_packed, *carry = kernels.backward(cell, frame.schedule, given)
    d_state, d_theta, d_initial = _cut(carry, (B, cell.hidden))
    blocks = d_packed.reshape(frame.T, frame.B, len(cell.gates), frame.H)
    d_theta = jax.tree.map(
        lambda d, v: d.sum(0 if v.ndim else None).astype(v.dtype), d_theta, params.theta
    )
    if d_initial is None:
        d_initial = jax.tree.map(jnp.zeros_like, inputs.initial)
    d_packed = blocks[:T, :B, :, : cell.hidden].reshape(T, B, -1)
    return d_packed, d_state, d_theta, d_initial


def _draws(cell: Cell, inputs: Inputs) -> Row | None:
    """Returns what the cell draws for all instants, each [T, B, H], in the dtype of the states."""
    theta, keys = inputs.params.theta, inputs.noise.keys
    if keys is None:
        return None
    rows, dtype = inputs.state[0].shape[0], inputs.state[0].dtype
    return jax.vmap(lambda key: drawn(cell, theta, key, rows, dtype))(keys)


def _frame(engine: Pallas, cell: Cell, x: Array, draws: Row | None) -> _Frame:
    """Returns how large the problem is on chip, and how it is cut."""
    (T, B, _), H, interpret = x.shape, engine._width(cell), engine.interpret
    if engine.platform == "gpu":
        whole = kernels.Schedule(ROWS, T, True, _triton_compiler(), interpret)
        return _Frame(T, _up(B, ROWS), H, whole)
    # What comes and goes with a row of an instant, in two buffers each: a flag takes all lanes.
    narrow, full = (jnp.dtype(dtype).itemsize for dtype in (x.dtype, wide(x.dtype)))
    states = len(cell.states) + len(draws or ())
    values = 2 * H * (len(cell.gates) * narrow + states * full)
    each = 2 * (values + 2 * LANES * 4)
    rows = min(TILE, BUFFERS // (8 * each) // ROWS * ROWS) or ROWS
    rows = _up(_parts(B, _parts(B, rows)), ROWS)
    chunks = _parts(T, max(1, min(CHUNK, BUFFERS // (rows * each))))
    instants = _parts(T, chunks)
    compiler = tpu.CompilerParams(dimension_semantics=("parallel", "arbitrary"))
    cut = kernels.Schedule(rows, instants, False, compiler, interpret)
    return _Frame(chunks * instants, _up(B, rows), H, cut)


def _triton_compiler() -> Any:
    """Returns the parameters of Triton's compiler.

    jax >= 0.11 warns that this backend is deprecated, where the program around the kernel is
    lowered: after this returns, so that the filter has to stay. `refuses` says when it is gone.
    """
    warnings.filterwarnings("ignore", "The Pallas Triton backend is deprecated", DeprecationWarning)
    return triton.CompilerParams(num_warps=8)  # pyright: ignore[reportOptionalMemberAccess]


def _circumstances(
    frame: _Frame, inputs: Inputs
) -> tuple[Array | None, Array | None, kernels.Parts | None]:
    """Returns mask, reset and keep as the kernels read them; instants past the end are masked."""
    T, B, _ = inputs.x.shape
    mask = jnp.ones((T, B), bool) if inputs.mask is None and frame.T > T else inputs.mask
    size = (frame.T, frame.B, 1)
    flags = [f if f is None else f[..., None].astype(jnp.int32) for f in (mask, inputs.reset)]
    mask, reset = (_fill(f, size, "constant") for f in flags)
    keep, H = inputs.noise.keep, inputs.state[0].shape[1]
    parts = None if keep is None else tuple(jnp.split(keep, keep.shape[1] // H, axis=1))
    return mask, reset, _fill(parts, (frame.B, frame.H))


def _fill_packed(cell: Cell, frame: _Frame, packed: Array, dtype: Any) -> Array:
    T, B, _ = packed.shape
    blocks = packed.astype(dtype).reshape(T, B, len(cell.gates), cell.hidden)
    filled = _fill(blocks, (frame.T, frame.B, len(cell.gates), frame.H))
    return filled.reshape(frame.T, frame.B, -1)


def _weights(
    cell: Cell, params: CellParams, frame: _Frame, dtype: Any
) -> tuple[kernels.Parts, ...]:
    """Returns, for each block that reads the state, a matrix [H, H] for each vector fed back.

    Nobody reads a filled unit.
    """
    w_h = params.w_h
    if w_h is None:
        return ()
    w_h = (dot(*w_h, dtype) if isinstance(w_h, tuple) else w_h).astype(dtype)
    F, columns = w_h.shape
    vectors = F // cell.hidden
    read = w_h.reshape(vectors, cell.hidden, columns)
    read = _fill(read, (vectors, frame.H, columns), "constant")
    blocks = split(cell, cell.h_blocks, read)
    return tuple(_fill(tuple(blocks[name]), (frame.H, frame.H)) for name in cell.h_blocks)


def _theta(cell: Cell, params: CellParams, frame: _Frame) -> Row:
    """Returns theta's vectors [1, H]; its scalars become vectors, too."""
    rows = jax.tree.map(lambda v: jnp.broadcast_to(v, (1, cell.hidden)), params.theta)
    return _fill(rows, (1, frame.H))


def _fill(tree: Any, size: tuple[int, ...], mode: str = "edge") -> Any:
    """Fills arrays up to `size`: values by copies of the last, so that they stay what values are.

    Cotangents, flags and the rows of weights are filled up with zeros ("constant"), so that nothing
    comes of the copies.
    """

    def filled(a):
        if a.shape == size:
            return a
        return jnp.pad(a, [(0, to - n) for n, to in zip(a.shape, size, strict=True)], mode)

    return jax.tree.map(filled, tree)


def _cut(tree: Any, size: tuple[int, ...]) -> Any:
    return jax.tree.map(lambda a: a[tuple(slice(n) for n in size)], tree)


def _up(n: int, multiple: int) -> int:
    return _parts(n, multiple) * multiple


def _parts(n: int, size: int) -> int:
    """Returns how many parts of `size` cover n."""
    return -(-n // size)
