"""Whole jobs, such as a training or a search: ours against the usual alternatives.

Every job runs in a process of its own, its rivals in turn. If the interval of a rival's results
does not overlap ours, the times are not compared.
"""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from absl import app

from lstm_jax.report import figures
from lstm_jax.report.statistics import Estimate, interval
from lstm_jax.report.tables import markdown
from scripts import _bench_agent, _bench_digits, _bench_start, _bench_text
from scripts._rivals import interleaved, keeping

ROOT = Path(__file__).resolve().parent.parent
PAGE, FIGURE = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "figures" / "jobs.png"
MARKS = "<!-- scripts/bench jobs -->\n", "<!-- end of scripts/bench jobs -->\n"
OURS = "lstm_jax"

Calls = dict[str, Callable[[int], list[float]]]
Save = Callable[[list[dict[str, Any]]], None]


class Job(NamedTuple):
    """A job and its rivals."""

    title: str  # for the table
    # returns a call for each rival, which runs the job and returns results
    rivals: Callable[[], Calls]
    repeats: int  # timed calls of each
    # rival -> the goal and the least goal for our time relative to its time
    goals: Mapping[str, tuple[float, float]] = MappingProxyType({})
    results: str = ""  # the kind of results, "" for none
    # rival -> factor from the timed part to the whole job
    whole: Mapping[str, float] = MappingProxyType({})
    devices: int = 1  # devices of jax on a CPU


SAMPLED = 96 / _bench_digits.SAMPLES
CORES = len(os.sched_getaffinity(0))
JOBS = {
    "a": Job(
        "one training of sequential digits, 1,200 updates", _bench_digits.one_training, 3,
        {"torch": (0.5, 0.8)}, "test accuracy", devices=CORES,
    ),
    "b": Job(
        "a search of 32 settings with 3 seeds each, 120 updates", _bench_digits.search, 2,
        {"torch": (0.15, 0.3), "Flax, vmap": (0.6, 0.6)}, "test accuracy",
        {"torch": SAMPLED, "torch, two processes": SAMPLED}, CORES,
    ),
    "c": Job(
        "a character model, 300 updates of 2,048 characters", _bench_text.characters, 5,
        {"torch": (0.9, 0.9)}, "nats a character", devices=CORES,
    ),
    "d": Job(
        "a rollout and update of recurrent PPO", _bench_agent.updates, 15,
        {"linen.scan": (0.7, 0.7)}, "mean reward",
    ),
    "e": Job(
        "from starting Python to the first update", _bench_start.first_update, 5,
        {"Flax NNX": (1.2, 1.2)},
    ),
    "f": Job("`long_memory --quick`", _bench_start.first_result, 1),
}  # fmt: skip


def jobs(
    alone: str | None, names: list[str] | None, minutes: float, save: Save, to_page: bool
) -> list[dict[str, Any]]:
    """Measures jobs in so many minutes, all by default, or one alone in this process."""
    if alone is not None:
        return [measure(alone)]
    names = list(JOBS) if names is None else names
    if not set(names) <= set(JOBS):
        raise app.UsageError(f"--jobs={','.join(names)}: need some of {','.join(JOBS)}")
    rows = run(names, minutes, save)
    print(table(rows))
    if to_page:
        write(rows)
    return rows


def run(names: list[str], minutes: float, save: Save) -> list[dict[str, Any]]:
    """Measures each job in a process of its own, and saves all rows after each."""
    rows, end = [], time.monotonic() + 60 * minutes
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "row.json"
            command = [sys.executable, "-P", str(ROOT / "scripts" / "_bench.py"), "jobs"]
            if not finishes(
                [*command, f"--rival={name}", f"--json={path}"], end, stdout=sys.stderr,
                env=os.environ | {"JAX_NUM_CPU_DEVICES": str(JOBS[name].devices)},
            ):  # fmt: skip
                print(f"bench: job ({name}) left out, it does not fit the time", file=sys.stderr)
                continue
            rows += json.loads(path.read_text())["rows"]
        save(rows)
    return rows


def finishes(command: list[str], end: float, **given: Any) -> bool:
    """Runs a command until `end` at most; returns whether it finished by then.

    Raises:
      subprocess.CalledProcessError: it fails.
    """
    left = end - time.monotonic()
    process = subprocess.Popen(command, start_new_session=True, **given)
    try:
        code = process.wait(left if left < math.inf else None)
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
            process.wait()
    if code:
        raise subprocess.CalledProcessError(code, command)
    return True


def measure(name: str) -> dict[str, Any]:
    """Measures one job in this process."""
    job = JOBS[name]
    calls, found = keeping(job.rivals())
    times = interleaved(calls, job.repeats, warm=True)
    seconds = {rival: each / 1e3 * job.whole.get(rival, 1) for rival, each in times.items()}
    return {
        "kind": "job",
        "job": name,
        "seconds": {rival: each.tolist() for rival, each in seconds.items()},
        "results": found if job.results else {},
    }


def same(row: dict[str, Any], rival: str) -> bool:
    """Returns whether the intervals of our results and the rival's overlap."""
    if not row["results"]:
        return True
    ours, theirs = (interval(row["results"][name]) for name in (OURS, rival))
    return ours.low <= theirs.high and theirs.low <= ours.high


def ratio(row: dict[str, Any], rival: str) -> Estimate:
    """Returns our median time over a rival's, and the extremes over all pairs of times."""
    ours, theirs = (np.array(row["seconds"][name]) for name in (OURS, rival))
    pairs = [a / b for a, b in itertools.product(ours, theirs)]
    return Estimate(float(np.median(ours) / np.median(theirs)), min(pairs), max(pairs))


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the table of all jobs."""
    lines = []
    for row in rows:
        title = f"({row['job']}) {JOBS[row['job']].title}"
        lines += [line(row, rival, "" if n else title) for n, rival in enumerate(row["seconds"])]
    return f"{markdown(lines)}\n"


def line(row: dict[str, Any], rival: str, title: str) -> dict[str, str]:
    """Returns the line of one program."""
    job, seconds = JOBS[row["job"]], row["seconds"][rival]
    found = {
        "job": title,
        "program": f"{rival} *" if rival in job.whole else rival,
        "seconds, median": f"{np.median(seconds):.3g}",
        "least to most": f"{min(seconds):.3g} to {max(seconds):.3g}",
        **dict.fromkeys(("results", "ours / it", "goal", "least"), ""),
    }
    if row["results"]:
        found["results"] = f"{job.results} {interval(row['results'][rival])}"
    if OURS in row["seconds"] and rival != OURS:
        equal = same(row, rival)
        found["ours / it"] = f"{ratio(row, rival).value:.2f}" if equal else "results differ"
        goals = (f"{bound:g}" for bound in job.goals.get(rival, ()))
        found |= dict(zip(("goal", "least"), goals, strict=False))
    return found


def draw(rows: list[dict[str, Any]]) -> bytes:
    """Draws the ratios of all jobs with their extremes, and the goals."""
    pairs = [
        (row, rival) for row in rows if OURS in row["seconds"]
        for rival in row["seconds"] if rival != OURS and same(row, rival)
    ]  # fmt: skip
    with figures.theme():
        figure, ((axes,),) = figures.canvas(1, 1, (10, 0.6 * len(pairs) + 1.6))
        style = figures.styles(["ratio", "goal"])
        for y, (row, rival) in enumerate(pairs):
            value, low, high = ratio(row, rival)
            axes.plot([low, high], [y, y], color=style["ratio"]["color"])
            axes.plot(value, y, **style["ratio"], label="measured, extremes" if y == 0 else None)
            if rival in JOBS[row["job"]].goals:
                goal = JOBS[row["job"]].goals[rival][0]
                axes.plot(goal, y, **{**style["goal"], "linestyle": "none"}, fillstyle="none",
                          label="goal" if y == 0 else None)  # fmt: skip
        axes.axvline(1, color="0.35", linewidth=1.2)
        axes.set_yticks(range(len(pairs)), [f"({row['job']}) {name}" for row, name in pairs])
        axes.invert_yaxis()
        axes.set(xscale="log", xlabel="time of lstm_jax / time of the other")
        axes.set_xticks((0.1, 0.2, 0.5, 1, 2), ("0.1", "0.2", "0.5", "1", "2"))
        axes.minorticks_off()
        figures.legend(figure, axes)
        return figures.png(figure)


def write(rows: list[dict[str, Any]]) -> None:
    """Writes the table into docs/benchmarks.md, between its marks, and the figure."""
    before, rest = PAGE.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    PAGE.write_text(before + MARKS[0] + table(rows) + MARKS[1] + after, encoding="utf-8")
    FIGURE.write_bytes(draw(rows))
