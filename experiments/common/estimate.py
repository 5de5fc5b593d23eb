"""Estimates of the memory and disk space of a plan, before the run starts."""

import errno
import functools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.common.flags import Request, shown
from experiments.common.plan import Computed, Group
from lstm_jax.nn import SequenceSpec
from lstm_jax.tasks import Task
from lstm_jax.training import evaluation, parallel, state_shapes

FLOAT = 4  # bytes
OTHER_FILES = 20_000_000  # bytes of the ledger, the curves and the report


def need_memory(groups: Sequence[Group | Computed], batching: str, request: Request) -> None:
    """Raises ValueError, with the given flags, for a group larger than the memory.

    The estimate is a lower bound. It has the parameters and optimiser states of all trials, twice
    on a CPU, whose memory also has the copy for a checkpoint. It has one batch of each concurrent
    trial, with the hidden states of its layers.
    """
    here, copies = memory(), 2 if jax.default_backend() == "cpu" else 1
    for group in trained(groups):
        states = copies * states_of(group).all
        batches = _batches(group, batching)
        if states + batches > here:
            a, b, c = (f"{count / 1e9:,.1f} GB" for count in (states, batches, here))
            raise ValueError(
                f"{_given(request)}: {group.name} needs {a} for the parameters and optimiser "
                f"states of its trials and {b} for their batches, this machine has {c}"
            )


def memory() -> int:
    """Returns the bytes of all devices, or of this machine if they do not report them."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    if all("bytes_limit" in known for known in stats):
        return jax.process_count() * sum(known["bytes_limit"] for known in stats)
    return jax.process_count() * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _batches(group: Group, batching: str) -> int:
    """Returns the bytes of the batches of all concurrent trials."""
    evaluated = min(group.sequences, evaluation.BATCH)
    sizes = [(group.task, max(group.batch_size, evaluated)), *group.measured]
    together = parallel.resolve(batching, parallel.everywhere()) == "vmap"
    at_once = _count(group) if together else min(_count(group), jax.device_count())
    return at_once * max(_batch(task, size, group.model) for task, size in sizes)


@functools.lru_cache(maxsize=256)
def _batch(task: Task, size: int, model: Any) -> int:
    """Returns the bytes of a batch and of the outputs of a network's layers."""
    drawn = jax.eval_shape(lambda: task.sample(jax.random.key(0), size))
    units = model.depth * model.cell.hidden if isinstance(model, SequenceSpec) else 0
    return _bytes(drawn) + FLOAT * task.length * size * units


def _given(request: Request) -> str:
    """Returns the given flags that determine the size of a plan."""
    sizes = {name: value for name, value in request.given.items() if not isinstance(value, str)}
    given = {name: request.given[name] for name in ("space", "batch") if name in request.given}
    scale = {"resume": request.resume} if request.resume else {"scale": request.scale or "small"}
    named = sizes | given or scale
    return " ".join(f"--{name}={shown(value)}" for name, value in named.items())


def need_disk_for(groups: Sequence[Group | Computed], request: Request) -> None:
    """Raises ValueError if the disk of a new run is too small for the plan so far."""
    if request.resume is None:
        path = Path(request.workdir or "runs")
        try:
            need_disk(path, groups)
        except OSError as error:
            raise ValueError(f"--workdir={path}: {error.strerror}") from None


def need_disk(path: Path, groups: Sequence[Group | Computed]) -> None:
    """Raises OSError unless the disk has space for the files of the ready groups.

    These are three checkpoints of the largest group (two, and one being written), the parameters of
    each group, kept states, and a constant for the rest.
    """
    sizes = [(states_of(group), group.save_state) for group in trained(groups)]
    left = sum(size.params + (size.all if keep else 0) for size, keep in sizes)
    needed = 3 * max((size.all for size, _ in sizes), default=0) + left + OTHER_FILES
    there = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"{free:,} bytes are free there, {needed:,} are needed")


def trained(groups: Sequence[Group | Computed]) -> list[Group]:
    """Returns the groups that have trials."""
    return [group for group in groups if isinstance(group, Group)]


def _count(group: Group) -> int:
    """Returns the number of trials, 1 while it is unknown."""
    return 1 if group.trials is None else len(group.trials.seed)


class Size(NamedTuple):
    """Bytes of the training state of trials: all of it, and its parameters."""

    all: int
    params: int


def states_of(group: Group) -> Size:
    """Returns the bytes of the states of all trials, 0 while unknown."""
    if group.trials is None:
        return Size(0, 0)
    leaves, structure = jax.tree.flatten(group.trials)
    kinds = tuple(leaf.dtype for leaf in leaves)
    shared = group.task, group.model, group.batch_size, group.optimizer
    one = _state_of_one(*shared, structure, kinds)
    return Size(_count(group) * one.all, _count(group) * one.params)


@functools.lru_cache(maxsize=256)
def _state_of_one(
    task: Task, model: Any, batch_size: int, optimizer: str, structure: Any, kinds: tuple[Any, ...]
) -> Size:
    """Returns the bytes of one trial's state; groups that differ in numbers share a trace."""
    trial = jax.tree.unflatten(structure, [np.zeros(1, kind) for kind in kinds])
    state = state_shapes(task, model, trial, batch_size=batch_size, optimizer=optimizer)
    return Size(_bytes(state), _bytes(state.params))


def _bytes(shapes: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
