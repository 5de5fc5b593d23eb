"""Trained networks in one directory, with everything that predictions need.

    directory/task.json       the task: sizes, head, class names, hash of the data; trials; versions
    directory/task.npz        the scales of inputs and targets
    directory/network-0/ ...  each network, in the format of `interop.save_model`

Loading unpickles nothing.
"""

import importlib.metadata
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lstm_jax import tasks
from lstm_jax.data.files import read_arrays
from lstm_jax.interop.architecture import listed
from lstm_jax.interop.model_files import (
    ARCHITECTURE,
    load_model,
    new_directory,
    read_json,
    save_model,
)
from lstm_jax.runs.records import plain
from lstm_jax.training.trials import Trials, make_trials

TASK, ARRAYS, NETWORK = "task.json", "task.npz", "network-{}"
FORMAT = "lstm_jax predictor, version 1"
PACKAGES = ("lstm_jax", "jax", "flax", "numpy")


def save(directory: str | os.PathLike, task: Any, model: Any, params: Any, trials: Trials) -> None:
    """Writes networks to a new directory, see `Predictor.save`."""
    description, arrays = task.state()
    content = {
        "format": FORMAT,
        "task": plain(description),
        "trials": {k: v for k, v in plain(trials._asdict()).items() if v is not None},
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    with new_directory(directory) as draft:
        (draft / TASK).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        np.savez(draft / ARRAYS, allow_pickle=False, **arrays)
        for m in range(len(trials.seed)):
            member = jax.tree.map(lambda leaf, m=m: leaf[m], params)
            save_model(draft / NETWORK.format(m), model, member)


def load(directory: str | os.PathLike, classes: Iterable[type] = ()) -> tuple[Any, ...]:
    """Returns task, model, parameters [M, ...] and trials, see `lj.load`."""
    directory, classes = Path(directory), listed(classes)
    content = _content(directory / TASK)
    trials = make_trials(**{k: _numbers(v) for k, v in content["trials"].items()})
    arrays = read_arrays(directory / ARRAYS)
    task = _kind(directory / TASK, content["task"], classes).restore(content["task"], arrays)
    each = [load_model(directory / NETWORK.format(m), classes) for m in range(len(trials.seed))]
    model, params = each[0][0], [params for _, params in each]
    return task, model, jax.tree.map(lambda *leaves: np.stack(leaves), *params), trials


def _content(path: Path) -> dict[str, Any]:
    if not path.is_file():
        near = next(path.parent.glob(f"*/{TASK}"), None)
        hint = "" if near is None else f"; there is one in {near.parent}"
        if (path.parent / ARCHITECTURE).is_file():
            hint = "; it holds a network, which lj.interop.load_model loads"
        right = f"hold a saved predictor ({TASK})"
        raise FileNotFoundError(f"directory must {right}, got {str(path.parent)!r}{hint}")
    content = read_json(path)
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path} must have the format {FORMAT!r}, got {found!r}")
    return content


def _kind(path: Path, description: dict[str, Any], classes: tuple[type, ...]) -> Any:
    known = {kind.__name__: kind for kind in classes} | vars(tasks)
    if description["kind"] not in known:
        raise ValueError(f"{path} has a task {description['kind']!r}: give its class in classes=")
    return known[description["kind"]]


def _numbers(values: Any) -> Any:
    """Returns arguments of `make_trials`; null stands for infinity, which JSON lacks."""
    if isinstance(values, dict):
        return {name: _numbers(value) for name, value in values.items()}
    return [np.inf if value is None else value for value in values]
