"""Widths in buckets: a network of 23 units is trained as one of 32, of which nine are zero.

One compiled program serves all widths of a bucket. A hidden unit whose weights and biases are all
zero has output zero, and their gradients are zero, so every optimiser here keeps them at zero. The
narrow network therefore needs no mask: it is the wide one with zeros around its own initial
parameters. Only a gate that is itself a state (full gate recurrence) would be 1/2 in such units.
Its bias there is so low that the gate is exactly 0, with a gradient of zero.

Noise during training (dropout) is drawn for the wide network, so a narrow network has the same
distribution as alone, but not the same draws.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from lstm_jax.cells import Cell, Zoneout, initial_state
from lstm_jax.engines import step
from lstm_jax.nn import SequenceSpec
from lstm_jax.nn.initializers import init
from lstm_jax.tasks.base import Task
from lstm_jax.tasks.predicting import power_of_two
from lstm_jax.training import fresh
from lstm_jax.training.step import State
from lstm_jax.training.trials import Trials, initial, keys
from lstm_jax.types import Array

bucket = power_of_two  # of a width: that of the program that trains it

SHUT = -1e4  # of a sigmoid this is 0, exactly, and so is the slope there


def begin(
    task: Task,
    specs: Sequence[SequenceSpec],
    wide: SequenceSpec,
    trials: Trials,
    **settings: Any,
) -> State:
    """Returns R trials before their first step, each with its own width inside the wide network.

    Trial i starts with the parameters that specs[i] draws for it.

    Args:
      task: the problem.
      specs: R networks that differ from `wide` in the width of their cell.
      wide: the network that is compiled, for `fit(task, wide, ..., begin_from=...)`.
      trials: R settings.
      **settings: batch_size, optimizer and epochs, as in `training.fresh`.

    Raises:
      ValueError: the units of the cell are not independent, so that zeros about it change it.
    """
    drawn = [_drawn(specs[i], wide, pick(trials, i)) for i in range(len(specs))]
    return fresh(task, wide, _stacked(drawn), trials, **settings)


def crop(
    task: Task,
    hidden: Sequence[int],
    wide: SequenceSpec,
    trials: Trials,
    *,
    batch_size: int = 16,
    optimizer: str = "adam",
) -> State:
    """Is `begin` with the draws of the wide network, of which trial i keeps hidden[i] units.

    One compilation draws for all widths, where `begin` needs one for each. It is right for initial
    weights whose law is that of every width (normal with one deviation); others start as those of
    the wide network do.

    `hidden` has R widths, at most that of `wide`; other arguments and errors are those of `begin`.
    """
    narrow = dataclasses.replace(wide, cell=dataclasses.replace(wide.cell, hidden=1))
    drawn = [_cropped(narrow, wide, width, pick(trials, i)) for i, width in enumerate(hidden)]
    return fresh(task, wide, _stacked(drawn), trials, batch_size=batch_size, optimizer=optimizer)


def pick(tree: Any, row: Any) -> Any:
    """Returns the leaves' rows."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[row], tree)


def widen(params: Any, shapes: Any, width: int, wide: int) -> Any:
    """Returns parameters of a network of `width` units as those of one of `wide`, zeros elsewhere.

    An axis that grows consists of blocks, one for each gate, layer or direction: each is filled up.

    Args:
      params: of the narrow network.
      shapes: leaves with the shapes of the wide one.
      width: units of a block before.
      wide: units of a block after.
    """
    return _resized(params, shapes, lambda leaf, axis: _filled(leaf, axis, width, wide))


def narrow(params: Any, shapes: Any, width: int, wide: int) -> Any:
    """Returns the first units of every block of a wide network: the inverse of `widen`.

    `shapes` are leaves with the shapes of the narrow network.
    """

    def cut(leaf, axis):
        return np.compress(np.arange(leaf.shape[axis]) % wide < width, leaf, axis)

    return _resized(params, shapes, cut)


def _resized(params: Any, shapes: Any, change: Callable[[Any, int], Any]) -> Any:
    """Returns parameters with `change` applied to every axis that is not as long as in `shapes`."""

    def resized(leaf, to):
        for axis, (now, then) in enumerate(zip(leaf.shape, to.shape, strict=True)):
            leaf = leaf if now == then else change(leaf, axis)
        return leaf

    return jax.tree.map(resized, params, shapes)


def shut(params: Any, cell: Cell, width: int) -> Any:
    """Returns widened parameters in which gates that are states are shut in units that are not.

    Args:
      params: of a network, or of a layer, with the layers' biases under the name b.
      cell: of the widened network.
      width: units of a block that are.
    """
    fed_back = [gate in cell.states and cell.ranges.get(gate) == (0, 1) for gate in cell.gates]
    kept = np.flatnonzero(fed_back)  # not tanh's, which are 0 where nothing comes in

    def low(path, leaf):
        if not kept.size or str(getattr(path[-1], "key", getattr(path[-1], "name", None))) != "b":
            return leaf
        blocks = np.array(leaf).reshape(len(cell.gates), cell.hidden)
        blocks[kept, width:] = SHUT
        return blocks.reshape(-1)

    return jax.tree.map_with_path(low, params)


def check_cell(cell: Cell) -> None:
    """Raises ValueError unless zeros about a cell are nothing to it.

    A cell of two units, one of them of zeros (and shut), must do what the cell of one unit does,
    and keep the other at zero.
    """
    cell = cell.cell if isinstance(cell, Zoneout) else cell
    if not _independent(type(cell), tuple(sorted(_fields(cell).items()))):
        raise ValueError(
            f"hidden={cell.hidden}: the units of {type(cell).__name__} depend on each other, so "
            "that it cannot be filled up with zeros; need powers of two"
        )


@functools.cache
def _independent(kind: type[Cell], fields: tuple[tuple[str, Any], ...]) -> bool:
    try:
        one, two = (kind(hidden=hidden, **dict(fields)) for hidden in (1, 2))
    except ValueError:  # blocks of several cells
        return False
    if one.widths() or two.widths():
        return False
    draw, x_key, narrow_key = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(x_key, (1, 3))
    narrow = jax.jit(
        lambda: jax.tree.map(
            lambda leaf: leaf + jax.random.normal(draw, leaf.shape), init(one, narrow_key, 3)
        )
    )()
    wide = shut(widen(narrow, jax.eval_shape(lambda: init(two, draw, 3)), 1, 2), two, 1)
    few, many = initial_state(one, (1,)), initial_state(two, (1,))
    advance = jax.jit(lambda *args: step(*args)[0], static_argnums=0)
    for _ in range(2):
        few, many = advance(one, narrow, few, x), advance(two, wide, many, x)
    return all(
        bool(np.all(w[:, 1:] == 0) and np.allclose(n, w[:, :1], rtol=1e-5, atol=1e-6))
        for n, w in zip(*jax.device_get((few, many)), strict=True)
    )


def _stacked(drawn: Sequence[Any]) -> Any:
    """Returns the parameters of all trials, leaves [R, ...]."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *drawn)


def _fields(cell: Cell) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(cell) if field.name != "hidden"]
    return {name: getattr(cell, name) for name in names}


def _drawn(spec: SequenceSpec, wide: SequenceSpec, trial: Trials) -> Any:
    if spec.cell.hidden != wide.cell.hidden:
        check_cell(spec.cell)
    params = jax.tree.map(np.asarray, _init(spec)(trial))
    widened = widen(params, _shapes(wide), spec.cell.hidden, wide.cell.hidden)
    return shut(widened, wide.cell, spec.cell.hidden)


def _cropped(narrow: SequenceSpec, wide: SequenceSpec, width: int, trial: Trials) -> Any:
    """Returns parameters of the wide network whose units after the first `width` are zero or shut.

    An axis belongs to units if its length differs from that of the network of one unit.
    """
    if width != wide.cell.hidden:
        check_cell(wide.cell)

    def within(leaf, one):
        leaf = np.array(leaf)
        for axis, (many, few) in enumerate(zip(leaf.shape, one.shape, strict=True)):
            unit = np.arange(many) % wide.cell.hidden if many != few else np.zeros(many)
            leaf *= np.expand_dims(unit < width, [a for a in range(leaf.ndim) if a != axis])
        return leaf

    kept = jax.tree.map(within, _init(wide)(trial), _shapes(narrow))
    return shut(kept, wide.cell, width)


@functools.lru_cache(maxsize=256)
def _init(spec: SequenceSpec) -> Any:
    return jax.jit(lambda trial: spec.init(keys(trial).init, **initial(trial)))


@functools.lru_cache(maxsize=64)
def _shapes(spec: SequenceSpec) -> Any:
    return jax.eval_shape(lambda: spec.init(jax.random.key(0)))


def _filled(leaf: Array | np.ndarray, axis: int, width: int, wide: int) -> np.ndarray:
    shape, before = leaf.shape, leaf.shape[:axis]
    blocks = np.reshape(leaf, (*before, shape[axis] // width, width, *shape[axis + 1 :]))
    padding = [(0, 0)] * blocks.ndim
    padding[axis + 1] = (0, wide - width)
    full = shape[axis] // width * wide
    return np.pad(blocks, padding).reshape(*before, full, *shape[axis + 1 :])
