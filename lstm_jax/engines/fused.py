"""The loop of the fused engine, around its kernels, with its gradients.

The kernels (`kernels`) run the sequential part. XLA computes the rest, each in one matrix product
for all time steps: the input products, the weight gradients, and the pre-activations of the
backward pass, from the saved states. Sizes are padded to powers of two or to whole tiles.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas import tpu

from lstm_jax.cells import Cell
from lstm_jax.engines import kernels, mosaic
from lstm_jax.engines.inputs import Inputs
from lstm_jax.engines.masking import reached, restart, zero_unless
from lstm_jax.engines.mosaic import Mosaic
from lstm_jax.engines.pallas import LANES, ROWS, Pallas
from lstm_jax.engines.products import (
    add_bias,
    assemble,
    dot,
    drawn,
    fed_back,
    preactivations,
    split,
)
from lstm_jax.engines.tiles import measured
from lstm_jax.types import Array, CellParams, Noise, Row, wide

try:
    from jax.experimental.pallas import triton
except ImportError:  # jax >= 0.11 deprecates it and will remove it
    triton = None

TILE = 128  # most rows of a tile on a TPU
CHUNK = 32  # most time steps of a chunk on a TPU
BUFFERS = 6 * 1024 * 1024  # bytes of the buffers of a chunk on a TPU, without the weights


class Frame(NamedTuple):
    """The kernels of an engine, and their padded sizes: time steps, rows and units."""

    T: int
    B: int
    H: int
    forward: Callable[[kernels.Forward], tuple[Row, Row]]
    backward: Callable[[kernels.Backward], tuple[Array, Row, Row, Row]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def run_loop(engine: Pallas | Mosaic, cell: Cell, inputs: Inputs):
    """Returns the final state, and the states [T, B, ...] after every time step."""
    return _forward(engine, cell, inputs)


def _loop_fwd(engine, cell, inputs):
    final, states = _forward(engine, cell, inputs)
    return (final, states), (inputs, states)


def _loop_bwd(engine: Pallas | Mosaic, cell: Cell, residuals, cotangents):
    inputs, states = residuals
    d_final, d_states = cotangents
    inputs = inputs._replace(x=zero_unless(inputs.mask, inputs.x))
    if inputs.reset is not None:  # time steps without a cotangent restart, with inputs of zero
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


run_loop.defvjp(_loop_fwd, _loop_bwd)


def _forward(engine: Pallas | Mosaic, cell: Cell, inputs: Inputs) -> tuple[Row, Row]:
    """Returns the final state and the states after every time step."""
    params, x, *_ = inputs
    T, B, D = x.shape
    from_x = dot(x.reshape(T * B, D), params.w_x, x.dtype)
    none = jnp.zeros((T * B, sum(cell.width(g) for g in cell.h_blocks)), from_x.dtype)
    packed = add_bias(assemble(cell, from_x, none), params.b).reshape(T, B, -1)
    draws = _draws(cell, inputs)
    frame = _frame(engine, cell, x, draws)
    mask, reset, keep = _flags_and_keep(frame, inputs)
    state, initial = (_pad(row, (frame.B, frame.H)) for row in (inputs.state, inputs.initial))
    given = kernels.Forward(
        _pad_packed(cell, frame, packed, x.dtype), _weights(cell, params, frame, x.dtype),
        _theta(cell, params, frame), state, None if reset is None else initial,
        keep, _pad(draws, (frame.T, frame.B, frame.H)), mask, reset,
    )  # fmt: skip
    final, states = frame.forward(given)
    return _cut(final, (B, cell.hidden)), _cut(states, (T, B, cell.hidden))


def _kernel_back(engine, cell, inputs, packed, start, d_states, d_final):
    """Returns d_packed [T, B, G] and the gradients of state, theta and initial."""
    params, x, *_ = inputs
    T, B, _ = x.shape
    draws = _draws(cell, inputs)
    frame = _frame(engine, cell, x, draws)
    mask, reset, keep = _flags_and_keep(frame, inputs)
    size = (frame.T, frame.B, frame.H)
    weights = jax.tree.map(jnp.transpose, _weights(cell, params, frame, x.dtype))
    given = kernels.Backward(
        _pad_packed(cell, frame, packed, x.dtype), _pad(start, size),
        _pad(d_states, size, "constant"), _pad(d_final, size[1:], "constant"),
        weights, _theta(cell, params, frame), keep, _pad(draws, size), mask, reset,
    )  # fmt: skip
    d_packed, *carry = frame.backward(given)
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
    """Returns the random vectors of all time steps, each [T, B, H]."""
    theta, keys = inputs.params.theta, inputs.noise.keys
    if keys is None:
        return None
    B, dtype = inputs.state[0].shape[0], inputs.state[0].dtype
    return jax.vmap(lambda key: drawn(cell, theta, key, B, dtype))(keys)


def _frame(engine: Pallas | Mosaic, cell: Cell, x: Array, draws: Row | None) -> Frame:
    """Returns the padded sizes and the schedule of a kernel."""
    if isinstance(engine, Mosaic):
        return _mosaic_frame(engine, cell, x)
    (T, B, _), H, interpret = x.shape, engine.width(cell), engine.interpret
    if engine.platform == "gpu":
        rows, warps, prefetch = engine.tiles or measured(_device(), H, x.dtype)
        whole = kernels.Schedule(rows, T, prefetch, _triton_compiler(warps), interpret)
        return _framed(kernels, (T, _up(B, rows), H), cell, whole)
    # The bytes of one row at one time step, in two buffers each; a flag takes all lanes.
    narrow, full = (jnp.dtype(dtype).itemsize for dtype in (x.dtype, wide(x.dtype)))
    states = len(cell.states) + len(draws or ())
    values = 2 * H * (len(cell.gates) * narrow + states * full)
    each = 2 * (values + 2 * LANES * 4)
    rows = min(TILE, BUFFERS // (8 * each) // ROWS * ROWS) or ROWS
    rows = _up(_parts(B, _parts(B, rows)), ROWS)
    chunks = _parts(T, max(1, min(CHUNK, BUFFERS // (rows * each))))
    steps = _parts(T, chunks)
    compiler = tpu.CompilerParams(dimension_semantics=("parallel", "arbitrary"))
    cut = kernels.Schedule(rows, steps, False, compiler, interpret)
    return _framed(kernels, (chunks * steps, _up(B, rows), H), cell, cut)


def _mosaic_frame(engine: Mosaic, cell: Cell, x: Array) -> Frame:
    from lstm_jax.engines import hopper  # jax >= 0.12 has what it needs

    (T, B, _), plan = x.shape, engine.plan(cell, x.dtype)
    size = T, _up(B, mosaic.ROWS), engine.width(cell)
    return _framed(hopper, size, cell, plan, engine.interpret)


def _framed(of: Any, size: tuple[int, int, int], *arguments: Any) -> Frame:
    """Returns the kernels of a module, with their first arguments."""
    partial = functools.partial
    return Frame(*size, partial(of.forward, *arguments), partial(of.backward, *arguments))


def _device() -> str:
    """Returns the kind of device on which jax runs by default."""
    return jax.devices()[0].device_kind


def _triton_compiler(warps: int) -> Any:
    """Returns the parameters of Triton's compiler.

    jax >= 0.11 warns that this backend is deprecated. JAX warns when it lowers the program
    around the kernel, after this call, so the filter stays active.
    """
    warnings.filterwarnings("ignore", "The Pallas Triton backend is deprecated", DeprecationWarning)
    return triton.CompilerParams(num_warps=warps)  # pyright: ignore[reportOptionalMemberAccess]


def _flags_and_keep(
    frame: Frame, inputs: Inputs
) -> tuple[Array | None, Array | None, kernels.Parts | None]:
    """Returns padded mask, reset and keep; time steps past the end are masked."""
    T, B, _ = inputs.x.shape
    mask = jnp.ones((T, B), bool) if inputs.mask is None and frame.T > T else inputs.mask
    size = (frame.T, frame.B, 1)
    flags = [f if f is None else f[..., None].astype(jnp.int32) for f in (mask, inputs.reset)]
    mask, reset = (_pad(f, size, "constant") for f in flags)
    keep, H = inputs.noise.keep, inputs.state[0].shape[1]
    parts = None if keep is None else tuple(jnp.split(keep, keep.shape[1] // H, axis=1))
    return mask, reset, _pad(parts, (frame.B, frame.H))


def _pad_packed(cell: Cell, frame: Frame, packed: Array, dtype: Any) -> Array:
    T, B, _ = packed.shape
    blocks = packed.astype(dtype).reshape(T, B, len(cell.gates), cell.hidden)
    padded = _pad(blocks, (frame.T, frame.B, len(cell.gates), frame.H))
    return padded.reshape(frame.T, frame.B, -1)


def _weights(cell: Cell, params: CellParams, frame: Frame, dtype: Any) -> tuple[kernels.Parts, ...]:
    """Returns matrices [H, H], by block of `w_h` and by vector of the feedback.

    Weights that read padding are zero.
    """
    w_h = params.w_h
    if w_h is None:
        return ()
    w_h = (dot(*w_h, dtype) if isinstance(w_h, tuple) else w_h).astype(dtype)
    F, columns = w_h.shape
    vectors = F // cell.hidden
    by_vector = w_h.reshape(vectors, cell.hidden, columns)
    by_vector = _pad(by_vector, (vectors, frame.H, columns), "constant")
    blocks = split(cell, cell.h_blocks, by_vector)
    return tuple(_pad(tuple(blocks[name]), (frame.H, frame.H)) for name in cell.h_blocks)


def _theta(cell: Cell, params: CellParams, frame: Frame) -> Row:
    """Returns theta with its vectors and scalars as padded vectors [1, H]."""
    vectors = jax.tree.map(lambda v: jnp.broadcast_to(v, (1, cell.hidden)), params.theta)
    return _pad(vectors, (1, frame.H))


def _pad(tree: Any, size: tuple[int, ...], mode: str = "edge") -> Any:
    """Pads arrays to `size`, by default with copies of their last entries.

    Copies are valid values, so equations stay finite. Cotangents, flags and rows of weights are
    padded with zeros ("constant"), so that the copies have no effect.
    """

    def padded(a):
        if a.shape == size:
            return a
        return jnp.pad(a, [(0, to - n) for n, to in zip(a.shape, size, strict=True)], mode)

    return jax.tree.map(padded, tree)


def _cut(tree: Any, size: tuple[int, ...]) -> Any:
    return jax.tree.map(lambda a: a[tuple(slice(n) for n in size)], tree)


def _up(n: int, multiple: int) -> int:
    return _parts(n, multiple) * multiple


def _parts(n: int, size: int) -> int:
    """Returns the number of parts of `size` that cover n."""
    return -(-n // size)
