"""Many trials at once: shared out over the devices, then one after another or together on each."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

BATCHINGS = ("auto", "vmap", "map")


def resolve(batching: str) -> str:
    """Returns "map" or "vmap"; "auto" is map on a CPU, where batched small products are slow.

    With map a trial's numbers are those of the trial alone, bit for bit on a CPU, and a trial that
    stopped costs nothing. With vmap they agree to float32's rounding, which training amplifies (the
    tests allow 1e-4 of the loss after 30 steps), and a trial that stopped costs what it did.

    Raises:
      ValueError: `batching` is no such name.
    """
    if batching not in BATCHINGS:
        raise ValueError(f"batching must be one of {', '.join(BATCHINGS)}, got {batching!r}")
    if batching == "auto":
        return "map" if jax.default_backend() == "cpu" else "vmap"
    return batching


class Layout:
    """Where each of R trials lies among the padded places that the devices share equally.

    Trials are dealt out like cards, so that neighbours, which often stop together, are on different
    devices. Empty places hold copies of trials and are to be kept idle. With map idle places cost
    nothing, so their number is rounded up to a power of two a device: batches of near sizes then
    share one compilation.
    """

    def __init__(self, trials: int, batching: str):
        devices = jax.device_count()
        rows = math.ceil(trials / devices)
        rows = 1 << (rows - 1).bit_length() if batching == "map" else rows
        dealt = np.arange(rows * devices).reshape(rows, devices).T.ravel()
        self._trial = dealt % trials
        self._place = np.argsort(dealt)[:trials]
        self.idle = _put(dealt >= trials)

    def spread(self, tree: Any) -> Any:
        """Returns leaves [R, ...] as leaves [places, ...] on their devices."""
        return jax.tree.map(lambda leaf: _put(np.asarray(leaf)[self._trial]), tree)

    def gather(self, tree: Any) -> Any:
        """Returns leaves [places, ...] as NumPy leaves [R, ...]; waits for them."""
        return jax.tree.map(lambda leaf: np.asarray(leaf)[self._place], tree)


def over_trials(one: Callable, batching: str) -> Callable:
    """Returns f(trees [places, ...], *shared) from `one`(tree, *shared), compiled.

    Places are shared out over all devices of all hosts, with nothing to say to each other; `shared`
    arguments are the same for every trial.
    """

    def within(trees, *shared):
        if batching == "vmap":
            return jax.vmap(lambda tree: one(tree, *shared))(trees)
        return lax.map(lambda tree: one(tree, *shared), trees)

    def everywhere(trees, *shared):
        specs = (PartitionSpec("trials"), *(PartitionSpec() for _ in shared))
        return jax.shard_map(
            within,
            mesh=_mesh(),
            in_specs=specs,
            out_specs=PartitionSpec("trials"),
            check_vma=False,
        )(trees, *shared)

    return jax.jit(everywhere)


def _put(array: np.ndarray) -> jax.Array:
    return jax.device_put(array, NamedSharding(_mesh(), PartitionSpec("trials")))


def _mesh() -> Mesh:
    return jax.make_mesh((jax.device_count(),), ("trials",), axis_types=(AxisType.Auto,))
