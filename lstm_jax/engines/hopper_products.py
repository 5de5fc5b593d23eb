"""Recurrent products on a Hopper GPU: the weights in shared memory, the operands exchanged.

Every warpgroup has values [64, units] of its own units, and needs the sum of products of the values
of all units. In one block the warpgroups write them to shared memory. In a cluster, each block
copies its values to global memory. After a barrier of the cluster it copies the values of all
blocks to its shared memory, some at a time. All copies are asynchronous. Consecutive time steps use
different parts of the global memory, so one barrier per time step is enough.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu

from lstm_jax.engines.mosaic import ROWS, Plan, Product
from lstm_jax.engines.steps import Parts
from lstm_jax.types import Array

plgpu: Any = mosaic_gpu  # its interface is that of jax 0.12
Ref = Any
Squares = tuple[Parts, ...]  # matrices [H, H], by output of the product and by its operand
ProductAt = Callable[[Array, Parts], Parts]


def described(squares: Squares) -> Product:
    """Returns the numbers of outputs and operands of a product."""
    if not squares:
        return Product(0, 0, 0)
    return Product(len(squares), len(squares[0]), squares[0][0].dtype.itemsize)


def stacked(plan: Plan, squares: Squares) -> Array | None:
    """Returns the weights [owners, outputs * units, operands * H], the summed axis last."""
    if not squares:
        return None
    w = jnp.stack([jnp.stack(row) for row in squares])
    outputs, operands, H, _ = w.shape
    w = w.reshape(outputs, operands, H, plan.owners, plan.units).transpose(3, 0, 4, 1, 2)
    return w.reshape(plan.owners, outputs * plan.units, operands * H)


def exchanged(plan: Plan, squares: Squares, tiles: int) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Returns the global memory of a product: two time steps' values of all blocks."""
    if plan.blocks == 1 or not squares:
        return ()
    shape = (2, tiles, plan.blocks, len(squares[0]), ROWS, plan.units)
    return (jax.ShapeDtypeStruct(shape, squares[0][0].dtype),)


def memory(plan: Plan, squares: Squares) -> tuple:
    """Returns the shared memory and the barriers of a product."""
    if not squares:
        return ()
    product, dtype = described(squares), squares[0][0].dtype
    swizzle = min(128, plan.units * dtype.itemsize)
    tiled = plgpu.TilingTransform((8, swizzle // dtype.itemsize)), plgpu.SwizzleTransform(swizzle)
    H, chunks = plan.owners * plan.units, plan.chunks(product)
    rows = (ROWS, plan.units)
    weights = plan.groups, product.outputs * plan.units, product.operands * H
    both = (
        plgpu.SMEM(weights, dtype, transforms=tiled),
        plgpu.Barrier(num_barriers=plan.groups),
        plgpu.SMEM((chunks, product.operands, *rows), dtype, transforms=tiled),
    )
    if plan.blocks == 1:
        return (*both, *(plgpu.Barrier(num_arrivals=plan.groups) for _ in range(2)))
    return (
        *both,
        plgpu.SMEM((product.operands, *rows), dtype, transforms=tiled),
        plgpu.Barrier(num_arrivals=product.operands, num_barriers=chunks),
        plgpu.ClusterBarrier(collective_axes=("block",), num_arrivals=1),
    )


def product(
    plan: Plan, squares: Squares, weights: Ref, exchange: tuple, memory: tuple
) -> ProductAt:
    """Returns the product at a time step, after it has copied the weights to shared memory."""
    if not squares:
        return lambda t, values: ()
    group, owner = lax.axis_index("group"), owner_index(plan)
    kept, copied, chunks, *rest = memory
    plgpu.copy_gmem_to_smem(weights.at[owner], kept.at[group], copied.at[group])
    plgpu.barrier_wait(copied.at[group])
    H, outputs = plan.owners * plan.units, len(squares)

    def accumulate(total: Ref, chunk: Ref, of: int) -> None:
        for n in range(len(squares[0])):
            columns = pl.ds(n * H + of * plan.units, plan.units)
            plgpu.wgmma(total, chunk.at[n], kept.at[group, :, columns].T)

    made = _in_block if plan.blocks == 1 else _in_cluster
    multiply = made(plan, chunks, accumulate, *rest, *exchange)

    def at(t: Array, values: Parts) -> Parts:
        total = multiply(t, tuple(value.astype(chunks.dtype) for value in values), outputs)
        return tuple(total[:, n * plan.units : (n + 1) * plan.units] for n in range(outputs))

    return at


def owner_index(plan: Plan) -> Array:
    """Returns the number of this warpgroup among all those of its tile."""
    return lax.axis_index("group") if plan.blocks == 1 else lax.axis_index("block")


def _summed(plan: Plan, outputs: int, add: Callable[[Ref], None]) -> Array:
    def total(accumulator):
        add(accumulator)
        return accumulator[...]

    return pl.run_scoped(total, plgpu.ACC((ROWS, outputs * plan.units), jnp.float32))


def _in_block(plan: Plan, chunks: Ref, accumulate: Callable, written: Ref, read: Ref) -> Callable:
    """Returns the product of a block; no value is written before all have read the last one."""
    group = lax.axis_index("group")
    plgpu.barrier_arrive(read)

    def multiply(t: Array, values: Parts, outputs: int) -> Array:
        plgpu.barrier_wait(read)
        for n, value in enumerate(values):
            chunks[group, n] = value
        plgpu.commit_smem()
        plgpu.barrier_arrive(written)
        plgpu.barrier_wait(written)

        def add(total):
            for of in range(plan.owners):
                accumulate(total, chunks.at[of], of)

        total = _summed(plan, outputs, add)
        plgpu.barrier_arrive(read)
        return total

    return multiply


def _in_cluster(
    plan: Plan, chunks: Ref, accumulate: Callable, own: Ref, ready: Ref, all_copied: Ref,
    exchange: Ref,
) -> Callable:  # fmt: skip
    """Returns the product of a cluster; `chunks` is a ring through which all values pass."""
    tile, block, length = lax.axis_index("tile"), lax.axis_index("block"), chunks.shape[0]

    def multiply(t: Array, values: Parts, outputs: int) -> Array:
        at_t = exchange.at[lax.rem(t, 2), tile]
        for n, value in enumerate(values):
            own[n] = value
        plgpu.commit_smem()
        for n in range(len(values)):
            plgpu.copy_smem_to_gmem(own.at[n], at_t.at[block, n])
        plgpu.wait_smem_to_gmem(0)
        plgpu.barrier_arrive(all_copied)
        plgpu.barrier_wait(all_copied)

        def fetch(of):
            for n in range(len(values)):
                into = chunks.at[of % length, n]
                plgpu.copy_gmem_to_smem(at_t.at[of, n], into, ready.at[of % length])

        def add(total):
            for of in range(length):
                fetch(of)
            for of in range(plan.blocks):
                plgpu.barrier_wait(ready.at[of % length])
                accumulate(total, chunks.at[of % length], of)
                if of + length < plan.blocks:
                    plgpu.wgmma_wait(0)
                    fetch(of + length)

        return _summed(plan, outputs, add)

    return multiply
