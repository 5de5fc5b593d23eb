"""The time loop as one kernel, forward and backward, for GPUs of the Hopper generation.

A thread block, or a cluster of them, computes a tile of 64 rows. Each warpgroup owns some units
with all their gates, whose states stay in its registers for the whole loop. It multiplies the
feedback of all units by the weights of its own ones (`hopper_products`), and the backward kernel
the gradients of all gates. The inputs of a time step are loaded during the one before it, and
states are stored as they are computed.

The functions have the contracts of `kernels.forward` and `kernels.backward`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import mosaic_gpu

from lstm_jax.cells import Cell
from lstm_jax.engines import hopper_products, steps
from lstm_jax.engines.hopper_products import ProductAt, Squares
from lstm_jax.engines.kernels import Backward, Forward
from lstm_jax.engines.lowerable import lowerable
from lstm_jax.engines.mosaic import ROWS, Plan
from lstm_jax.types import Array, Row

plgpu: Any = mosaic_gpu  # its interface is that of jax 0.12
Ref = Any


def forward(cell: Cell, plan: Plan, interpret: bool, given: Forward) -> tuple[Row, Row]:
    """Returns the final state, each [B, H], and all states, each [T, B, H]."""
    (T, B, _), (_, H), wide = given.packed.shape, given.state[0].shape, given.state[0].dtype
    final = cell.State(*(jax.ShapeDtypeStruct((B, H), wide) for _ in cell.states))
    states = cell.State(*(jax.ShapeDtypeStruct((T, B, H), wide) for _ in cell.states))

    def lstm_jax_forward(product: ProductAt, given: Forward, out: tuple[Row, Row]) -> None:
        fixed = steps.Fixed(_theta(given.theta), *_read((given.initial, given.keep)))
        final, states = out

        def advance(t, carry):
            inputs, state = carry
            product_t = functools.partial(product, t)
            state = steps.step(cell, fixed, product_t, inputs, state, lowerable)
            jax.tree.map(lambda ref, s: _write(ref.at[t], s), states, state)
            return _inputs(cell, given, jnp.minimum(t + 1, T - 1)), state

        first = _inputs(cell, given, 0), _read(given.state)
        jax.tree.map(_write, final, lax.fori_loop(0, T, advance, first)[1])

    return _call(lstm_jax_forward, plan, interpret, given.weights, given, (final, states))


def backward(
    cell: Cell, plan: Plan, interpret: bool, given: Backward
) -> tuple[Array, Row, Row, Row]:
    """Returns the gradients of the pre-activations, the state, theta and the initial state.

    The first is [T, B, G H], the others are each [B, H], theta's for every row of the batch. The
    initial state's is None without resets.
    """
    T, packed = len(given.packed), given.packed
    row = jax.ShapeDtypeStruct(given.d_final[0].shape, given.d_final[0].dtype)
    d_state = cell.State(*(row for _ in cell.states))
    d_theta = jax.tree.map(lambda _: row, given.theta)
    d_initial = None if given.reset is None else d_state
    out = jax.ShapeDtypeStruct(packed.shape, packed.dtype), d_state, d_theta, d_initial

    def lstm_jax_backward(product: ProductAt, given: Backward, out: tuple) -> None:
        fixed = steps.Fixed(_theta(given.theta), None, _read(given.keep))
        d_packed, *d_first = out

        def load(t):
            return _inputs(cell, given, t), *_at((given.start, given.d_states), t)

        def advance(k, carry):
            t, ((inputs, start, d_after), carry) = T - 1 - k, carry
            carry = (steps.add(carry[0], d_after), *carry[1:])
            following = []

            def write(d_gates):
                for n, d_gate in enumerate(d_gates):
                    _write(_gate(d_packed, t, n), d_gate)
                following.append(load(jnp.maximum(t - 1, 0)))

            product_t = functools.partial(product, t)
            carry = steps.step_back(cell, fixed, product_t, inputs, start, carry, write, lowerable)
            return following[0], carry

        d_final = _read(given.d_final)
        none = None if given.reset is None else steps.zeros(d_final)
        last = load(T - 1), (d_final, steps.zeros(fixed.theta), none)
        jax.tree.map(_write, tuple(d_first), lax.fori_loop(0, T, advance, last)[1])

    squares = tuple(zip(*given.weights, strict=True))
    return _call(lstm_jax_backward, plan, interpret, squares, given, out)


def _call(
    body: Callable, plan: Plan, interpret: bool, squares: Squares, given: Any, out: Any
) -> Any:
    """Runs `body` on a grid of tiles, each with its product and its parts of the arrays."""
    (_, B, columns), rest = given.packed.shape, given._replace(packed=(), weights=())
    gates = columns // (plan.units * plan.owners)
    split = functools.partial(_split, plan, gates)
    packed = given.packed.reshape(split(given.packed.shape))
    rest = jax.tree.map(lambda a: a.reshape(split(a.shape)), rest)
    weights = hopper_products.stacked(plan, squares)
    operands, tree = jax.tree.flatten((packed, rest, weights))
    outputs, out_tree = jax.tree.flatten(
        jax.tree.map(lambda s: jax.ShapeDtypeStruct(split(s.shape), s.dtype), out)
    )
    exchange = hopper_products.exchanged(plan, squares, B // ROWS)
    ends = len(operands), len(operands) + len(outputs)

    def kernel(*refs):
        memory = refs[ends[1] :]
        through, memory = memory[: len(exchange)], memory[len(exchange) :]
        packed, rest, weights = tree.unflatten(refs[: ends[0]])
        product = hopper_products.product(plan, squares, weights, through, memory)
        tile, owner = lax.axis_index("tile"), hopper_products.owner_index(plan)
        own = jax.tree.map(lambda ref: _own(ref, tile, owner), (packed, rest))
        made = out_tree.unflatten([_own(r, tile, owner) for r in refs[ends[0] : ends[1]]])
        body(product, own[1]._replace(packed=own[0]), made)

    kernel.__name__ = body.__name__
    made = plgpu.kernel(
        kernel,
        out_type=(*outputs, *exchange),
        scratch_types=hopper_products.memory(plan, squares),
        grid=(B // ROWS,),
        grid_names=("tile",),
        cluster=(plan.blocks,) if plan.blocks > 1 else (),
        cluster_names=("block",) if plan.blocks > 1 else (),
        num_threads=plan.groups,
        thread_name="group",
        interpret=plgpu.InterpretGPUParams(detect_races=True) if interpret else None,
    )(*operands)
    made = out_tree.unflatten(made[: len(outputs)])
    return jax.tree.map(lambda a, s: a.reshape(s.shape), made, out)


def _split(plan: Plan, gates: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns `shape` with axes for tiles, rows and owners, and for gates if it has them.

    The axes are those of `_own`.
    """
    units, (*time, B, width) = (plan.owners, plan.units), shape
    if B == 1:
        return units
    rows = (*time, B // ROWS, ROWS)
    if width == 1:
        return rows
    return (*rows, *units) if width == plan.owners * plan.units else (*rows, gates, *units)


def _own(ref: Ref, tile: Array, owner: Array) -> Ref:
    """Returns the part of an array that belongs to one tile and one warpgroup."""
    every = slice(None)
    index = {
        2: (owner,),  # theta [owner, unit]
        3: (every, tile),  # flags [T, tile, row]
        4: (tile, every, owner),  # [tile, row, owner, unit]
        5: (every, tile, every, owner),  # [T, tile, row, owner, unit]
        6: (every, tile, every, every, owner),  # [T, tile, row, gate, owner, unit]
    }[len(ref.shape)]
    return ref.at[index]


def _inputs(cell: Cell, given: Forward | Backward, t: Any) -> steps.Given:
    packed = tuple(_load(_gate(given.packed, t, n)) for n in range(len(cell.gates)))
    flags = (_rows(ref, t, packed[0].shape) for ref in (given.mask, given.reset))
    return steps.Given(packed, _at(given.draws, t), *flags)


def _gate(packed: Ref, t: Any, n: int) -> Ref:
    """Returns a gate of pre-activations [T, row, gate, unit], which lack an axis for one gate."""
    return packed.at[t] if len(packed.shape) == 3 else packed.at[t, :, n]


def _rows(ref: Ref | None, t: Any, shape: tuple[int, ...]) -> Array | None:
    """Returns the flags of a time step, repeated for all units."""
    return None if ref is None else lax.broadcast_in_dim(_load(ref.at[t]), shape, (0,))


def _theta(theta: Row) -> Row:
    return jax.tree.map(lambda v: lax.broadcast_in_dim(_load(v), (ROWS, *v.shape), (1,)), theta)


def _load(ref: Ref) -> Array:
    """Returns the values of an array; a matrix lies in registers as a product's sums do."""
    value = plgpu.load(ref, optimized=False)
    return plgpu.layout_cast(value, plgpu.Layout.WGMMA) if value.ndim == 2 else value


def _read(refs: Any) -> Any:
    return jax.tree.map(_load, refs)


def _at(refs: Any, t: Any) -> Any:
    return jax.tree.map(lambda ref: _load(ref.at[t]), refs)


def _write(ref: Ref, value: Array) -> None:
    plgpu.store(ref, value.astype(ref.dtype), optimized=False)
