"""Checkpoints of what is in flight, by orbax: saved behind the computation, whole or not at all."""

import io
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lstm_jax.records import replace_file


class Checkpoints:
    """The last few states of one group of trials, each with a JSON note beside it.

    A save that was cut short leaves nothing that `restore` would take; what it left is cleared away
    before the next is saved. It is one process's own: among several it waits for none.
    """

    def __init__(self, directory: str | os.PathLike):
        ocp, process = _orbax(), jax.process_index()
        alone = ocp.options.MultiprocessingOptions(
            primary_host=process, active_processes={process}, barrier_sync_key_prefix="alone"
        )
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, cleanup_tmp_directories=True, create=False, multiprocessing_options=alone
        )
        self._args = ocp.args
        path = Path(directory).absolute()
        path.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(path, options=options)

    def latest(self) -> int | None:
        """Returns the step of the newest checkpoint, None where there is none."""
        return self._manager.latest_step()

    def note(self) -> dict[str, Any]:
        """Returns the note of the newest checkpoint."""
        args = self._args.Composite(note=self._args.JsonRestore())
        return self._manager.restore(self.latest(), args=args).note

    def restore(self, template: Any) -> Any:
        """Returns the newest state as NumPy arrays.

        `template` has the state's structure, with leaves of its shapes and types; without one
        optax's tuples would come back as lists.
        """
        args = self._args.Composite(state=self._args.StandardRestore(_solid(template)))
        state = self._manager.restore(self.latest(), args=args).state
        return jax.tree.map(lambda like, leaf: leaf if np.size(like) else like, template, state)

    def save(self, step: int, state: Any, note: dict[str, Any]) -> None:
        """Saves a tree of NumPy arrays and a note behind the computation, once for each step."""
        if step == self.latest():
            return
        args = self._args.Composite(
            state=self._args.StandardSave(_solid(state)), note=self._args.JsonSave(note)
        )
        self._manager.save(step, args=args)

    def close(self) -> None:
        """Waits until everything is on the disk."""
        self._manager.wait_until_finished()
        self._manager.close()


def export(path: str | os.PathLike, tree: Any) -> None:
    """Writes a tree of arrays as an npz file, one entry a leaf, named by its path in the tree.

    The same arrays give the same bytes.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **{_name(at): np.asarray(leaf) for at, leaf in leaves})
    replace_file(path, content.getvalue())


def load(path: str | os.PathLike, template: Any) -> Any:
    """Reads a tree that `export` wrote, as NumPy arrays; nothing is unpickled.

    `template` has the tree's structure, with leaves that have its shapes and types.

    Raises:
      ValueError: the file lacks a leaf, has one too many, or one of another shape or type.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    wanted = {_name(at): leaf for at, leaf in jax.tree_util.tree_leaves_with_path(template)}
    for name in sorted(wanted.keys() ^ arrays.keys()):
        raise ValueError(f"{path} {'lacks' if name in wanted else 'has the unknown'} {name!r}")
    return jax.tree.map_with_path(
        lambda at, leaf: _fitting(path, _name(at), arrays, leaf), template
    )


def _fitting(
    path: str | os.PathLike, name: str, arrays: dict[str, np.ndarray], leaf: Any
) -> np.ndarray:
    """Returns the array called `name`; types that NumPy does not know lie in the file as bytes."""
    array = arrays[name].view(leaf.dtype) if arrays[name].dtype.kind == "V" else arrays[name]
    if (array.shape, array.dtype) != (leaf.shape, leaf.dtype):
        found, wanted = f"{array.shape} {array.dtype}", f"{leaf.shape} {leaf.dtype}"
        raise ValueError(f"{path}: {name!r} is {found}, expected {wanted}")
    return array


def _solid(tree: Any) -> Any:
    """The tree with a zero for every empty array (minLSTM's w_h), which orbax refuses to save."""
    return jax.tree.map(lambda leaf: leaf if np.size(leaf) else np.zeros(1, leaf.dtype), tree)


def _name(path: jax.tree_util.KeyPath) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _orbax() -> Any:
    try:
        import orbax.checkpoint as ocp
    except ImportError:
        raise ImportError("checkpoints need orbax: pip install 'lstm_jax[experiments]'") from None
    return ocp
