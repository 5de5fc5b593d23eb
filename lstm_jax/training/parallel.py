"""The distribution of trials over devices, and of a batch over the devices of one trial."""

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
LEAST_ROWS = 16  # of a device of a CPU; with fewer, waiting for other devices costs too much

Devices = Sequence[Any]  # of jax.Device, which type checkers do not accept as a type


def everywhere(devices: Devices | None = None) -> Mesh:
    """Returns a mesh with one axis over the devices; by default all devices of all hosts."""
    count = jax.device_count() if devices is None else len(devices)
    return jax.make_mesh((count,), ("trials",), axis_types=(AxisType.Auto,), devices=devices)


def shared(mesh: Mesh, trials: int, batch_size: int, batching: str) -> Mesh:
    """Returns the mesh with a second axis, "batch", if there are fewer trials than devices.

    If `batching` is "map", devices share no batch: the numbers of a trial depend neither on the
    devices nor on other trials.
    """
    least = LEAST_ROWS if batching == "auto" and platform(mesh) == "cpu" else 1
    each = sharing(mesh.size, trials, batch_size, least) if batching != "map" else 1
    if each == 1:
        return mesh
    grouped = mesh.devices.reshape(-1, each)
    return Mesh(grouped, ("trials", "batch"), axis_types=(AxisType.Auto,) * 2)


def sharing(devices: int, trials: int, batch_size: int, least: int = 1) -> int:
    """Returns how many devices share a batch.

    The most that divide both the devices and the sequences, and leave as many for each other trial.
    Each has at least `least` sequences.
    """
    most = range(min(devices // trials, batch_size // least), 1, -1)
    return next((n for n in most if devices % n == 0 and batch_size % n == 0), 1)


def share(mesh: Mesh, tree: Any, axis: int) -> Any:
    """Returns this device's share of a batch along an axis, within `over_trials`."""
    count = sharers(mesh)
    if count == 1:
        return tree

    def cut(leaf):
        size = leaf.shape[axis] // count
        start = lax.axis_index("batch") * size
        return lax.dynamic_slice_in_dim(leaf, start, size, axis)

    return jax.tree.map(cut, tree)


def own_key(mesh: Mesh, key: jax.Array) -> jax.Array:
    """Returns a key of this device if devices share a batch, within `over_trials`."""
    return key if sharers(mesh) == 1 else jax.random.fold_in(key, lax.axis_index("batch"))


def unite(mesh: Mesh, leaf: jax.Array, axis: int) -> jax.Array:
    """Returns the concatenated shares of all devices, within `over_trials`.

    The gradient on one device is that of its own share, times the number of devices. The `mean`
    over devices is therefore the gradient of the whole.
    """
    return leaf if sharers(mesh) == 1 else lax.all_gather(leaf, "batch", axis=axis, tiled=True)


def mean(mesh: Mesh, tree: Any) -> Any:
    """Returns the mean over the devices that share a batch, within `over_trials`."""
    return tree if sharers(mesh) == 1 else lax.pmean(tree, "batch")


def sharers(mesh: Mesh) -> int:
    """Returns the number of devices that share the batch of a trial."""
    return mesh.shape.get("batch", 1)


def platform(mesh: Mesh) -> str:
    """Returns the platform of the devices: "cpu", "gpu" or "tpu"."""
    return mesh.devices.flat[0].platform


def resolve(batching: str, mesh: Mesh) -> str:
    """Returns "map" or "vmap"; "auto" is map on a CPU, where batched small products are slow.

    With map a stopped trial costs nothing, and the numbers of a trial do not depend on other
    trials, bit for bit on a CPU (with "auto" only where devices share no batch, see `shared`).
    With vmap they agree up to float32 rounding, which training amplifies (the tests allow 1e-4 of
    the loss after 30 steps). A stopped trial still costs time.

    Raises:
      ValueError: `batching` is unknown.
    """
    check_choice("batching", batching, BATCHINGS)
    if batching == "auto":
        return "map" if platform(mesh) == "cpu" else "vmap"
    return batching


class Layout:
    """The places of R trials on the devices, the same number of places on each device.

    Consecutive trials, which often stop together, are on different devices. Empty places hold
    copies of trials and stay idle. With map idle places cost nothing, so each device gets a power
    of two of places: similar numbers of trials then share one compilation.
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
        """[places] bool, True for empty places."""
        return _put(self._idle, self._sharding)

    def spread(self, tree: Any) -> Any:
        """Returns leaves [R, ...] as leaves [places, ...] on their devices."""
        return jax.tree.map(lambda leaf: _put(np.asarray(leaf)[self._trial], self._sharding), tree)

    def share(self, tree: Any) -> Any:
        """Returns leaves of any shape, replicated on every device."""
        return jax.tree.map(lambda leaf: _put(np.asarray(leaf), self._everywhere), tree)

    def outline(self, tree: Any) -> Any:
        """Returns leaves as sharded shapes [places, ...]; the devices may be absent."""
        places = (len(self._idle),)
        return jax.tree.map(lambda a: _shape(places + a.shape[1:], a, self._sharding), tree)

    def outline_whole(self, tree: Any) -> Any:
        """Returns leaves as replicated shapes; the devices may be absent."""
        return jax.tree.map(lambda a: _shape(a.shape, a, self._everywhere), tree)

    def gather(self, tree: Any) -> Any:
        """Returns leaves [places, ...] as NumPy leaves [R, ...] in every process."""
        return jax.tree.map(lambda leaf: hosts.fetch(leaf)[self._place], tree)


def _shape(shape: tuple[int, ...], leaf: Any, sharding: NamedSharding) -> Any:
    return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=sharding)


def _put(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Returns a sharded array; each process provides the parts on its own devices."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def over_trials(one: Callable, batching: str, mesh: Mesh) -> jax.stages.Wrapped:
    """Returns f(trees [places, ...], *shared), compiled from `one`(tree, *shared).

    The places are distributed over the devices of the mesh. Only devices that share a batch
    communicate. The `shared` arguments are the same for every trial.
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
