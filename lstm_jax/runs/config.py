"""The start of a run on disk: a locked directory with settings and circumstances."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lstm_jax.runs.lock import Lock, lock_run
from lstm_jax.runs.records import Damaged, Record, plain, replace_file, temporaries

CONFIG = "config.json"


def begin_run(directory: Path, settings: Mapping[str, Any], about: Mapping[str, Any]) -> Lock:
    """Makes and locks a directory, and writes config.json, which makes it a run; returns the lock.

    Raises:
      ValueError: the directory holds a run, another process uses it, or it cannot be written.
    """
    config = plain({"settings": settings, "about": about})
    text = json.dumps(config | {"sha256": _sha256(config)}, indent=2)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        held = lock_run(directory)
        if (directory / CONFIG).exists():
            right = "resume it or choose another directory"
            raise ValueError(f"{directory} already holds a run: {right}")
        for left in temporaries(directory):  # of a killed process
            left.unlink()
        replace_file(directory / CONFIG, (text + "\n").encode())
    except OSError as error:
        raise ValueError(f"{directory} cannot be written: {error.strerror}") from None
    return held


def read_config(directory: Path) -> Record:
    """Returns {"settings", "about"}, written by `begin_run`.

    Raises:
      Damaged: config.json is missing, or has changed since it was written.
    """
    path = directory / CONFIG
    if not path.exists():
        fault = f"holds no run to resume, it has no {CONFIG}"
        raise Damaged(directory, fault, "need the directory of a run")
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(path, f"it cannot be read ({error})") from None
    parts = [config.get(name) for name in ("settings", "about")] if isinstance(config, dict) else []
    if not parts or not all(isinstance(part, dict) for part in parts):
        raise Damaged(path, "it lacks settings or about")
    right = config.pop("sha256", None)  # earlier versions wrote none
    if right is not None and right != _sha256(config):
        raise Damaged(path, "it was changed", "undo the change, or begin a new run")
    return config


def _sha256(config: Record) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
