"""Processes that tests start, and what they wait for: no wait is without end."""

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
LIMIT = 600.0  # seconds that nothing takes, however busy the machine is


def run(command: Sequence[Any], **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, from the root of the checkout, with its output as text."""
    usual = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": LIMIT}
    return subprocess.run(command, **{**usual, **options})


def wait_until(holds: Callable[[], Any], seconds: float = LIMIT) -> None:
    """Returns once a condition holds; the test fails where it does not in time."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            pytest.fail(f"a condition does not hold after {seconds:.0f} s")
        time.sleep(0.01)
