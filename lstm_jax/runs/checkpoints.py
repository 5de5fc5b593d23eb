"""Trees of arrays on disk: checkpoints of unfinished groups, and exports of finished ones."""

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lstm_jax.runs.ledger import sha256_of
from lstm_jax.runs.records import Damaged, replace_file

NOTE = ":note"


class Checkpoints:
    """The last two states of one group of trials, each with a JSON note.

    A checkpoint is the file STEP.SHA256.npz, written by a background thread. The checksum in its
    name reveals any damage. The file appears whole or not at all.
    """

    def __init__(self, directory: str | os.PathLike):
        self._directory = Path(directory).absolute()
        self._latest: Path | None = None  # saved or restored by this process
        self._writer = ThreadPoolExecutor(1)
        self._saving: Future[None] | None = None

    def paths(self) -> list[Path]:
        """Returns the checkpoints, newest first."""
        found = [p for p in self._directory.glob("*.*.npz") if p.name.split(".")[0].isdigit()]
        return sorted(found, key=step_of, reverse=True)

    def restore(self, path: Path, template: Any) -> Any:
        """Returns the state of a checkpoint as NumPy arrays; later checkpoints follow it.

        `template` has the state's structure, with leaves of its shapes and dtypes.
        """
        self._latest = path
        arrays = _arrays(path)
        del arrays[NOTE]
        return _fill(path, template, arrays)

    def save(self, step: int, state: Any, note: Mapping[str, Any]) -> None:
        """Saves a tree of NumPy arrays and a note in the background, once for each step.

        Raises:
          OSError: the previous checkpoint could not be written.
        """
        self._wait()
        if self._latest is None or step_of(self._latest) != step:
            self._saving = self._writer.submit(self._save, step, state, note)

    def close(self) -> None:
        """Waits until everything is on disk; raises as `save`."""
        try:
            self._wait()
        finally:
            self._writer.shutdown()

    def _wait(self) -> None:
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def _save(self, step: int, state: Any, note: Mapping[str, Any]) -> None:
        content = _npz({NOTE: np.frombuffer(json.dumps(note).encode(), np.uint8), **_named(state)})
        self._directory.parent.mkdir(exist_ok=True)
        self._directory.mkdir(exist_ok=True)
        path = self._directory / f"{step}.{hashlib.sha256(content).hexdigest()}.npz"
        replace_file(path, content)
        for old in set(self.paths()) - {path, self._latest}:
            old.unlink()
        self._latest = path


def step_of(path: Path) -> int:
    """Returns the step of a checkpoint."""
    return int(path.name.split(".")[0])


def read_note(path: Path) -> dict[str, Any]:
    """Returns the note of a checkpoint.

    Raises:
      Damaged: the checkpoint has changed since it was saved.
    """
    if sha256_of(path) != path.name.split(".")[1]:
        raise Damaged(path, "it is not as it was saved")
    with np.load(path, allow_pickle=False) as file:
        return json.loads(file[NOTE].tobytes())


def export(path: str | os.PathLike, tree: Any) -> str:
    """Writes a tree of arrays as an npz file, with one entry for each leaf, named by its path.

    Equal arrays give equal bytes.

    Returns:
      The SHA-256 of the file.
    """
    content = _npz(_named(tree))
    replace_file(path, content)
    return hashlib.sha256(content).hexdigest()


def load(path: str | os.PathLike, template: Any) -> Any:
    """Reads a tree that `export` wrote, as NumPy arrays, without pickle.

    `template` has the tree's structure, with leaves of its shapes and dtypes.

    Raises:
      ValueError: the file lacks a leaf, has an unknown one, or one of another shape or dtype.
      Damaged: the file cannot be read.
    """
    return _fill(path, template, _arrays(path))


def _arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as content, np.load(content, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise Damaged(path, f"it cannot be read ({error})") from None


def _fill(path: str | os.PathLike, template: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Returns the template with the arrays in place of its leaves."""
    wanted = _named(template)
    for name in sorted(wanted.keys() ^ arrays.keys()):
        raise ValueError(f"{path} {'lacks' if name in wanted else 'has the unknown'} {name!r}")
    return jax.tree.map_with_path(
        lambda at, leaf: _fitting(path, _name(at), arrays, leaf), template
    )


def _fitting(
    path: str | os.PathLike, name: str, arrays: dict[str, np.ndarray], leaf: Any
) -> np.ndarray:
    """Returns the array called `name`; npz files store dtypes that NumPy lacks as bytes."""
    array = arrays[name].view(leaf.dtype) if arrays[name].dtype.kind == "V" else arrays[name]
    if (array.shape, array.dtype) != (leaf.shape, leaf.dtype):
        found, wanted = f"{array.shape} {array.dtype}", f"{leaf.shape} {leaf.dtype}"
        raise ValueError(f"{path}: {name!r} is {found}, expected {wanted}")
    return array


def _npz(arrays: Mapping[str, Any]) -> bytes:
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **{k: np.asarray(leaf) for k, leaf in arrays.items()})
    return content.getvalue()


def _named(tree: Any) -> dict[str, Any]:
    """Returns the leaves by their paths in the tree."""
    return {_name(at): leaf for at, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _name(path: jax.tree_util.KeyPath) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
