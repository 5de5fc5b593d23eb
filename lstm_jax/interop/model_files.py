"""A trained model as one directory: what it is, in JSON, and its parameters, as safetensors.

    directory/architecture.json        the spec: cell, sizes, initialisers, engine, dtype
    directory/parameters.safetensors   the parameters, by their paths in the tree

A fresh process needs nothing else, and nothing is unpickled.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax

from lstm_jax.interop.architecture import decode, encode, registry
from lstm_jax.interop.checking import check, named
from lstm_jax.interop.tensors import fill, load_tensors, save_tensors
from lstm_jax.nn import SequenceSpec

ARCHITECTURE, PARAMETERS = "architecture.json", "parameters.safetensors"
FORMAT = "lstm_jax model, version 4"


def save_model(directory: str | os.PathLike, spec: SequenceSpec, params: Any) -> None:
    """Writes a model to a new directory, whole or not at all.

    Args:
      directory: where; it must not exist.
      spec: the model's description.
      params: its parameters, those of one trial: of many that `fit` returns,
        `jax.tree.map(lambda p: p[trial], result.params)`.

    Raises:
      FileExistsError: the directory exists; it is left as it is.
      ValueError: a parameter is missing, unexpected or of another shape or dtype than the spec's.
      TypeError: the spec has a value that JSON cannot hold, such as a function.
    """
    content = {"format": FORMAT, "spec": encode(spec)}
    check_params(spec, params)
    with new_directory(directory) as draft:
        save_tensors(draft / PARAMETERS, params)
        (draft / ARCHITECTURE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def new_directory(directory: str | os.PathLike) -> Iterator[Path]:
    """Yields a draft that becomes `directory`, unless an error ends the block.

    Raises:
      FileExistsError: the directory exists; it is left as it is.
    """
    directory = Path(directory).absolute()
    check_new(directory)
    draft = directory.with_name(f".{directory.name}.{os.getpid()}.draft")
    draft.mkdir(parents=True)
    try:
        yield draft
        draft.rename(directory)  # refuses a directory that holds anything
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def check_new(path: str | os.PathLike) -> None:
    """Raises FileExistsError if the path exists."""
    if os.path.exists(path):
        raise FileExistsError(f"{path} exists, and a model is never overwritten")


def check_params(spec: SequenceSpec, params: Any) -> None:
    """Asserts that `params` are those of one trial of `spec`.

    Raises:
      ValueError: a parameter is missing, unexpected or of another shape or dtype: the first is
        named; TypeError: `spec` is no `SequenceSpec`.
    """
    check("params", found := named(params), named(_template(spec, found)))


def load_model(
    directory: str | os.PathLike, classes: Iterable[type] = ()
) -> tuple[SequenceSpec, Any]:
    """Reads a model that `save_model` wrote.

    Args:
      directory: where.
      classes: the classes in the spec that are not the library's own, such as a cell of yours.

    Returns:
      The spec and the parameters, as JAX arrays.

    Raises:
      FileNotFoundError: a file is not there.
      ValueError: the description is of another format, names an unknown class, has values that no
        model has, or is not that of the parameters; or a tensor is missing, unexpected or of
        another shape or dtype: the first is named.
    """
    directory = Path(directory)
    path, known = directory / ARCHITECTURE, registry(classes)
    content, tensors = _described(path), load_tensors(directory / PARAMETERS)
    try:
        spec = decode(content, known)
        template = _template(spec, tensors)
    except Exception as error:  # whatever a class of the spec makes of values it was never given
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} cannot be used: {reason}") from error
    return spec, fill(str(directory / PARAMETERS), template, tensors)


def _template(spec: SequenceSpec, names: Iterable[str]) -> Any:
    """Returns the shapes and dtypes of the parameters, which are called `names`."""
    if not isinstance(spec, SequenceSpec):
        raise TypeError(f"spec must be a SequenceSpec, got {spec!r}")
    for dtype in (spec.dtype, spec.stored_dtype):
        if jax.dtypes.canonicalize_dtype(dtype) != dtype:
            raise ValueError(f"the model is {dtype}: set jax_enable_x64, or JAX rounds it")
    start = "stack.layers."
    depth = len({name.split(".")[2] for name in names if name.startswith(start)})
    if spec.depth != depth:  # before each layer is traced, which takes a while
        raise ValueError(f"spec.depth must be {depth}, as in the parameters, got {spec.depth}")
    return jax.eval_shape(spec.init, jax.random.key(0))


def read_json(path: Path) -> Any:
    """Returns what a JSON file holds.

    Raises:
      FileNotFoundError: it is not there; ValueError: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not whole: {error}") from None
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None


def _described(path: Path) -> Any:
    content = read_json(path)
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT or "spec" not in content:
        raise ValueError(f"{path} must have the format {FORMAT!r} and a spec, got {found!r}")
    return content["spec"]
