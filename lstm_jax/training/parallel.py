"""Many trials at once: shared out over the devices, then one after another or together on each."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lstm_jax.checks import check_choice
from lstm_jax.runs import hosts

BATCHINGS = ("auto", "vmap", "map")

Devices = Sequence[Any]  # of jax.Device, which type checkers do not take for a type


def everywhere(devices: Devices | None = None) -> Mesh:
    """Returns the devices that share the trials, all of all hosts by default, as one axis."""
    count = jax.device_count() if devices is None else len(devices)
    return jax.make_mesh((count,), ("trials",), axis_types=(AxisType.Auto,), devices=devices)


def shared(mesh: Mesh, trials: int, batch_size: int, batching: str) -> Mesh:
    """Returns the mesh on which trials that are fewer than devices share their batches out.

    It has a second axis, "batch". With map nothing is shared, so that the numbers of a trial are
    those of the trial alone, wherever it runs.
    """
    each = sharing(mesh.size, trials, batch_size) if batching == "vmap" else 1
    if each == 1:
        return mesh
    grouped = mesh.devices.reshape(-1, each)
    return Mesh(grouped, ("trials", "batch"), axis_types=(AxisType.Auto,) * 2)


def sharing(devices: int, trials: int, batch_size: int) -> int:
    """Returns how many devices share a batch.

    The most that divide both the devices and the sequences, and leave as many for each other trial.
    """
    most = range(max(1, devices // trials), 1, -1)
    return next((n for n in most if devices % n == 0 and batch_size % n == 0), 1)


def share(mesh: Mesh, tree: Any, axis: int) -> Any:
    """Returns, within `over_trials`, this device's share of a batch along an axis."""
    count = sharers(mesh)
    if count == 1:
        return tree

    def cut(leaf):
        size = leaf.shape[axis] // count
        start = lax.axis_index("batch") * size
        return lax.dynamic_slice_in_dim(leaf, start, size, axis)

    return jax.tree.map(cut, tree)


def own_key(mesh: Mesh, key: jax.Array) -> jax.Array:
    """Returns, within `over_trials`, a key of this device's own where devices share a batch."""
    return key if sharers(mesh) == 1 else jax.random.fold_in(key, lax.axis_index("batch"))


def unite(mesh: Mesh, leaf: jax.Array, axis: int) -> jax.Array:
    """Returns, within `over_trials`, the whole of what devices have computed of their shares.

    What a device differentiates of it is its own share's part, as many times as devices share it:
    the mean over them (`mean`) is the gradient of the whole.
    """
    return leaf if sharers(mesh) == 1 else lax.all_gather(leaf, "batch", axis=axis, tiled=True)


def mean(mesh: Mesh, tree: Any) -> Any:
    """Returns, within `over_trials`, the mean over the devices that share a batch."""
    return tree if sharers(mesh) == 1 else lax.pmean(tree, "batch")


def sharers(mesh: Mesh) -> int:
    """Returns how many devices share the batch of a trial."""
    return mesh.shape.get("batch", 1)


def platform(mesh: Mesh) -> str:
    """Returns "cpu", "gpu" or "tpu": what the devices are, whether or not they are in reach."""
    return mesh.devices.flat[0].platform


def resolve(batching: str, mesh: Mesh) -> str:
    """Returns "map" or "vmap"; "auto" is map on a CPU, where batched small products are slow.

    With map a trial's numbers are those of the trial alone, bit for bit on a CPU, and a trial that
    stopped costs nothing. With vmap they agree to float32's rounding, which training amplifies (the
    tests allow 1e-4 of the loss after 30 steps), and a trial that stopped costs what it did.

    Raises:
      ValueError: `batching` is no such name.
    """
    check_choice("batching", batching, BATCHINGS)
    if batching == "auto":
        return "map" if platform(mesh) == "cpu" else "vmap"
    return batching


class Layout:
    """Where each of R trials lies among the padded places that the devices share equally.

    Trials are dealt out like cards, so that neighbours, which often stop together, are on different
    devices. Empty places hold copies of trials and are to be kept idle. With map idle places cost
    nothing, so their number is rounded up to a power of two a device: batches of near sizes then
    share one compilation.
    """

    def __init__(self, trials: int, batching: str, mesh: Mesh):
        devices = mesh.shape["trials"]
        rows = math.ceil(trials / devices)
        rows = 1 << (rows - 1).bit_length() if batching == "map" else rows
        dealt = np.arange(rows * devices).reshape(rows, devices).T.ravel()
        self._trial = dealt % trials
        self._place = np.argsort(dealt)[:trials]
        self._idle = dealt >= trials
        self._sharding = NamedSharding(mesh, PartitionSpec("trials"))
        self._everywhere = NamedSharding(mesh, PartitionSpec())

    @property
    def idle(self) -> jax.Array:
        """[places] bool: where there is no trial."""
        return _put(self._idle, self._sharding)

    def spread(self, tree: Any) -> Any:
        """Returns leaves [R, ...] as leaves [places, ...] on their devices."""
        return jax.tree.map(lambda leaf: _put(np.asarray(leaf)[self._trial], self._sharding), tree)

    def share(self, tree: Any) -> Any:
        """Returns leaves of any shape, whole on every device."""
        return jax.tree.map(lambda leaf: _put(np.asarray(leaf), self._everywhere), tree)

    def outline(self, tree: Any) -> Any:
        """Returns leaves of any length as shapes [places, ...] on devices that need not be here."""

        def shape(leaf):
            places = (len(self._idle), *leaf.shape[1:])
            return jax.ShapeDtypeStruct(places, leaf.dtype, sharding=self._sharding)

        return jax.tree.map(shape, tree)

    def outline_whole(self, tree: Any) -> Any:
        """Returns the shapes of leaves that are whole on every device, which need not be here."""

        def shape(leaf):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self._everywhere)

        return jax.tree.map(shape, tree)

    def gather(self, tree: Any) -> Any:
        """Returns leaves [places, ...] as NumPy leaves [R, ...], in every process; waits."""
        return jax.tree.map(lambda leaf: hosts.fetch(leaf)[self._place], tree)


def _put(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Returns an array that every process has, each putting what lies on its own devices."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def over_trials(one: Callable, batching: str, mesh: Mesh) -> jax.stages.Wrapped:
    """Returns f(trees [places, ...], *shared) from `one`(tree, *shared), compiled.

    Places are shared out over the devices of the mesh, with nothing to say to each other but where
    they share a batch; `shared` arguments are the same for every trial.
    """

    def within(trees, *shared):
        if batching == "vmap":
            return jax.vmap(lambda tree: one(tree, *shared))(trees)
        return lax.map(lambda tree: one(tree, *shared), trees)

    def sharded(trees, *shared):
        specs = (PartitionSpec("trials"), *(PartitionSpec() for _ in shared))
        return jax.shard_map(
            within,
            mesh=mesh,
            in_specs=specs,
            out_specs=PartitionSpec("trials"),
            check_vma=False,
        )(trees, *shared)

    return jax.jit(sharded)
