"""A check of the laws that every cell obeys, also for cells of your own."""

import functools

import jax

from lstm_jax.cells import Cell, LinearCell
from lstm_jax.cells.base import check_is_cell
from lstm_jax.testing.laws import quick
from lstm_jax.testing.one_step import (
    check_declarations,
    check_linear,
    check_noise,
    check_purity,
    check_ranges,
    check_results,
    check_uniform,
    check_use,
    draw_samples,
    states_after,
    update_and_read,
)
from lstm_jax.testing.over_time import check_time


def check_cell(cell: Cell, *, input_size: int = 3, seed: int = 0) -> None:
    """Asserts that `cell` satisfies the interface of `lj.Cell`.

    For one time step it checks:

    - The declared members are consistent.
    - `update` returns a state and gates of the declared names, widths and dtypes.
    - Equal arguments give equal results, which are finite and in `ranges`.
    - Every gate, state and small parameter is used.
    - `linear` of a `LinearCell` agrees with its `update`, and `uniform()` has the same equations.
    - A noisy cell satisfies all this with its draws, which depend on the key only, and uses them.

    Over time, in float64, it checks:

    - Streaming and splitting, with masks and resets, give the results of one unroll.
    - Outputs depend neither on later time steps nor on other rows.
    - Every engine that runs the cell on a CPU has the gradients of `Reference`, also under `vmap`
      over parameters.

    Args:
      cell: a small cell; most of the time is compilation. A noisy one needs rates above zero.
      input_size: D, the width of the input.
      seed: seed of parameters and data.

    Raises:
      AssertionError: the message names the cell, the law and the field.
      TypeError: `cell` is no cell.
    """
    check_is_cell(cell)
    with jax.enable_x64(True):
        check_declarations(cell)
        check_results(cell)
        samples = draw_samples(cell, seed)
        check_purity(cell, samples)
        update = quick(jax.vmap(functools.partial(update_and_read, cell), in_axes=(0, 0, None)))
        check_ranges(cell, update, samples)
        states = states_after(cell, update, samples)
        if isinstance(cell, LinearCell):
            check_linear(cell, update, samples, states[1])
        if cell.noisy:
            check_noise(cell, samples, states[0])
        if cell.uniform() != cell:
            check_uniform(cell, samples, states[0])
        check_use(cell, update, samples, *states)
        check_time(cell, input_size, seed, *states)
