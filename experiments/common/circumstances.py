"""The circumstances of a run: versions, devices, revision, engines."""

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("jax", "jaxlib", "flax", "optax", "chex", "numpy", "scikit-learn")


def circumstances(command: Sequence[str], models: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the command, machine, versions, devices, revision and each model's engine."""
    devices, here = jax.devices(), jax.default_backend()
    return {
        "command": " ".join(command),
        "python": platform.python_version(),
        "machine": platform.platform(),
        "versions": {name: _version(name) for name in PACKAGES},
        "platform": devices[0].platform,
        "devices": [device.device_kind for device in devices],
        "processes": jax.process_count(),
        "revision": _git("rev-parse", "HEAD"),
        "uncommitted changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "engines": {name: str(model.on(here).engine) for name, model in models.items()},
    }


def changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns a line for each change that may change numbers."""
    names = ("python", "versions", "platform", "devices", "revision", "engines")
    changed = [name for name in names if was.get(name) != now.get(name)]
    return [f"{name} was {was.get(name)}, is {now.get(name)}" for name in changed]


def user_cache() -> Path:
    """Returns the folder of what later runs use again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lstm_jax"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Returns git's output on this source; None outside a checkout."""
    try:
        output = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True)
    except OSError:
        return None
    return output.stdout.strip() if output.returncode == 0 else None
