"""Check, tune and measure lstm_jax on a GPU, with the installed libraries.

    check  every engine against `reference`, cell by cell, gradients included
    tiles  the tiles of the fused engine; writes lstm_jax/engines/tiles.json
    bench  the suites peers, throughput and jobs of scripts/bench

Each part runs in a process of its own, for its share of the remaining time at most. It writes rows
(JSON) and text to the folder of results, each as soon as it is found.
"""

import argparse
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SUITES = ("peers", "throughput", "jobs")
PARTS = {"check": ("check",), "tiles": ("tiles",), "bench": SUITES}
RESERVE = 20  # seconds of a part for its start and its last step


class Request(NamedTuple):
    """Parts to run, folder of results, minutes, and whether shapes are small."""

    parts: list[str]
    out: Path
    minutes: float
    tiny: bool


def request(words: list[str]) -> Request:
    """Returns the request of a command line."""
    about, _, _ = str(__doc__).partition("\n\nEach")
    parser = argparse.ArgumentParser(
        prog="gpu", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", nargs="*", help="check, tiles, bench (all three)")
    parser.add_argument("--out", type=Path, default=Path("gpu_results"), help="folder of results")
    parser.add_argument("--minutes", type=float, default=6.0, help="of this call, all its parts")
    parser.add_argument("--tiny", action="store_true", help="small shapes, on any machine")
    given = parser.parse_args(words)
    for name in given.part:
        if name not in PARTS:
            parser.error(f"PART={name}: need {', '.join(PARTS)}")
    return Request(given.part or list(PARTS), given.out, given.minutes, given.tiny)


def command(part: str, asked: Request, seconds: float) -> list[str]:
    """Returns the command of one part that has `seconds`."""
    minutes = f"--minutes={max(0.0, seconds - RESERVE) / 60:.2f}"
    python = [sys.executable, "-P"]
    if part not in SUITES:
        flags = [f"--out={asked.out}", minutes, *["--tiny"] * asked.tiny]
        return [*python, str(ROOT / "scripts" / f"_gpu_{part}.py"), *flags]
    flags = [f"--json={asked.out / part}.json", minutes]
    flags += ["--gpu", "--trials=1,16,256,4096"]
    if asked.tiny:
        flags += ["--tiny", "--repeats=1", "--trials=1"]
    return [*python, str(ROOT / "scripts" / "_bench.py"), part, *flags]


def run(part: str, asked: Request, seconds: float) -> str:
    """Runs one part, prints and writes its output, and returns how it ended."""
    began = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with (
        (asked.out / f"{part}.txt").open("w", encoding="utf-8") as file,
        subprocess.Popen(
            command(part, asked, seconds), env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process,
    ):  # fmt: skip
        end = threading.Timer(seconds, process.kill)
        end.start()
        for line in process.stdout or ():
            print(line, end="", flush=True)
            file.write(line)
            file.flush()
        end.cancel()
    endings = {0: "done", -9: "ended, no time left"}
    ending = endings.get(process.returncode, f"failed, exit code {process.returncode}")
    return f"{part}: {ending}, {time.monotonic() - began:.0f} s"


def main(words: list[str]) -> int:
    """Runs the parts in turn; returns 1 unless all succeed."""
    asked = request(words)
    asked.out.mkdir(parents=True, exist_ok=True)
    end, endings = time.monotonic() + 60 * asked.minutes, []
    parts = [part for name in asked.parts for part in PARTS[name]]
    for n, part in enumerate(parts):
        share = (end - time.monotonic()) / (len(parts) - n)
        endings.append(run(part, asked, share))
    print("\n".join(f"gpu: {ending}" for ending in endings))
    return int(not all(": done" in ending for ending in endings))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
