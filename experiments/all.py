"""All experiments run one after another and report claims, verdicts and costs on one page.

Cheap experiments run first, each in a directory of its own. `report.html` has their tables and
figures; `results.md` has each claim with the result here, the published result, the verdict and the
cost. Both are made from records alone. `--resume` continues a stopped run. An experiment that fails
is named; the other experiments still run.

Command: scripts/run all --scale=small --results=docs/results.md
Cost: --quick a quarter of an hour; 276 minutes by default, two cores; --scale=paper is for a GPU
"""

import dataclasses
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.common import flags, report, runner, terminal
from experiments.common.flags import PLATFORMS, need, need_sound, setting
from experiments.common.plan import Experiment
from experiments.common.report import Report
from lstm_jax.report import html
from lstm_jax.report.tables import markdown
from lstm_jax.runs import CONFIG, Ledger, RecordLog, RunDirectory, read_config, replace_file

ROOT = Path(__file__).resolve().parent.parent
ORDER = (
    "gates", "gradient_flow", "chorales", "hmm", "sequential_mnist", "long_memory", "gers",
    "formal", "memory_rl", "halving", "robustness", "sweep", "odyssey", "char_lm", "forecast",
    "classic",
)  # fmt: skip
STOPPED = (130, 143, terminal.CLOSED)  # exit codes of a stopped experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class All:
    """Selects the experiments to run and the file for their results."""

    only: tuple[str, ...] = setting(ORDER, "experiments to run", choices=ORDER)
    platform: str = setting("auto", "where they run", choices=PLATFORMS)
    results: str = setting("", "a file for a copy of results.md")

    def __post_init__(self):
        need_sound(self)
        path = Path(self.results)
        fits = os.access(path.parent, os.W_OK) and not path.is_dir()
        right = "need a file in a directory that can be written"
        need(fits or not self.results, "results", self.results, right)

    @property
    def names(self) -> list[str]:
        """The selected experiments, cheap ones first."""
        return [name for name in ORDER if name in self.only]


SCALES: Mapping[str, All] = {scale: All() for scale in flags.SCALES}


class Finished(NamedTuple):
    """The report of a finished experiment, and its cost."""

    report: Report
    seconds: float


def main(argv: Sequence[str]) -> int:
    """Runs the experiments; returns 0, 2 for bad input, or the code of a failure."""
    return terminal.command("all", lambda: prepared(argv))


def prepared(argv: Sequence[str]) -> Callable[[], int]:
    """Returns the work of a command line, in the directory of its run."""
    request = flags.parse(argv, All)
    if request.help:
        return runner.show_help(str(__doc__), flags.usage(SCALES))
    if request.hosts is not None:
        raise ValueError("--distributed, --coordinator: need one experiment, such as sweep")
    scale, config = runner.chosen("all", SCALES, request)
    runner.start("cpu")  # the accelerator is for the experiments, in processes of their own
    run = runner.open_run("all", request, scale, config, {})
    return lambda: runner.guarded(run, lambda: carry_out(run, scale, config))


def carry_out(run: RunDirectory, scale: str, config: All) -> int:
    """Runs the unfinished experiments and reports all finished ones; returns the exit code."""
    codes = run_all(run.path, scale, config)
    write_results(run.path, scale, config)
    return next((code for code in codes if code), 0)


def run_all(folder: Path, scale: str, config: All) -> list[int]:
    """Runs the unfinished experiments until one is stopped; returns the exit codes."""
    codes = []
    for name in config.names:
        if name not in done(folder):
            codes.append(run_one(name, folder, scale, config))
            if codes[-1] in STOPPED:
                print(f"stopped; to continue: --resume={folder}", file=sys.stderr)
                break
            if codes[-1]:
                print(f"{name} failed with exit code {codes[-1]}", file=sys.stderr)
    return codes


def run_one(name: str, folder: Path, scale: str, config: All) -> int:
    """Runs or resumes one experiment and records its cost."""
    path, began = folder / name, time.monotonic()
    new = [f"--workdir={path}", f"--scale={scale}", f"--platform={config.platform}"]
    terminal.write(f"\n== {name}")
    code = call(name, [f"--resume={path}"] if (path / CONFIG).exists() else new)
    spent = {"experiment": name, "seconds": time.monotonic() - began, "code": code}
    RecordLog(folder / "costs.jsonl").append([spent])
    return code


def call(name: str, arguments: Sequence[str]) -> int:
    """Runs an experiment in its own process, with empty memory."""
    command = [sys.executable, "-P", "-m", f"experiments.{name}", *arguments]
    return run_process(command, {**os.environ, "PYTHONPATH": str(ROOT)})


def run_process(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs a process to its end, and stops it when this process is stopped.

    Returns:
      The exit code, as a shell gives it; 143 after SIGTERM, 130 after Ctrl-C.
    """
    came: list[int] = []
    child: subprocess.Popen | None = None

    def stop(number: int, _: Any) -> None:
        came.append(number)
        if child and (number == signal.SIGTERM or len(came) > 1):  # the child gets Ctrl-C itself
            child.terminate()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        child = subprocess.Popen(command, env=environment)
        if came:
            child.terminate()
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        return 128 + came[0]
    return code if code >= 0 else 128 - code


def done(folder: Path) -> dict[str, float]:
    """Returns the seconds of each finished experiment, over all its parts."""
    spent = RecordLog(folder / "costs.jsonl").read()
    finished = [record["experiment"] for record in spent if record["code"] == 0]
    return {n: sum(r["seconds"] for r in spent if r["experiment"] == n) for n in finished}


def load(name: str) -> Experiment:
    """Returns the experiment of that name."""
    return importlib.import_module(f"experiments.{name}").EXPERIMENT


def write_results(folder: Path, scale: str, config: All) -> None:
    """Writes the page and the list of claims of all finished experiments."""
    seconds = done(folder)
    runs = [finished(load(n), folder / n, seconds[n]) for n in config.names if n in seconds]
    text = results(scale, runs, [n for n in config.names if n not in seconds])
    for path in (folder / "results.md", *([Path(config.results)] if config.results else [])):
        replace_file(path, text.encode())
    replace_file(folder / "report.html", page(scale, runs).encode())
    terminal.write(f"\n{text}")


def finished(experiment: Experiment, path: Path, seconds: float) -> Finished:
    """Returns the report of one run, from its records."""
    read_config(path)  # refuses a directory without a run
    ledger = Ledger(path / "records.jsonl")
    ledger.check(path)
    kind = type(experiment.scales["small"])
    _, config = runner.stored(experiment.name, kind, str(path))
    return Finished(report.made(experiment, config, path, ledger.read()), seconds)


def results(scale: str, runs: Sequence[Finished], missing: Sequence[str] = ()) -> str:
    """Returns claims, results, verdicts and the table of costs as Markdown."""
    parts = [f"# Results at --scale={scale}", where(runs)]
    parts += [f"Not finished, and not on this page: {', '.join(missing)}."] if missing else []
    for one, _ in runs:
        name, claims = one.experiment.name, [claim._asdict() for claim in one.claims]
        parts += [f"## {name}", report.claim_of(one.experiment)]
        parts += [f"`scripts/run {name} --scale={scale}`"]
        parts += [markdown(claims) if claims else "It makes no claim of its own."]
        parts += [markdown(one.numbers)] if one.numbers else []
    costs = [{**cost, "minutes": f"{cost['minutes']:.1f}"} for cost in costs_of(runs)]
    return "\n\n".join([*parts, "## Cost", markdown(costs)]) + "\n"


def costs_of(runs: Sequence[Finished]) -> list[dict[str, Any]]:
    """Returns the minutes and the source of each experiment, and the minutes of all."""
    lines = [(one.experiment.name, seconds / 60, source(one)) for one, seconds in runs]
    lines.append(("together", sum(minutes for _, minutes, _ in lines), ""))
    return [dict(zip(("experiment", "minutes", "source"), line, strict=True)) for line in lines]


def source(one: Report) -> str:
    """Returns the revision that started a run; resumed runs may differ in it."""
    about = one.settings["about"]
    changed = ", with changes" if about["uncommitted changes"] else ""
    revision = about["revision"]
    return (revision[:10] if revision else "no checkout") + changed


def where(runs: Sequence[Finished]) -> str:
    """Returns a line for each set of devices and versions."""
    lines = {}
    for one, _ in runs:
        about = one.settings["about"]
        devices = f"{len(about['devices'])} devices ({about['devices'][0]})"
        versions = f"jax {about['versions']['jax']}, flax {about['versions']['flax']}"
        lines.setdefault(f"{devices}, {versions}", []).append(one.experiment.name)
    if len(lines) == 1:
        return f"Made from records alone, on {next(iter(lines))}, by `scripts/run all`."
    return "\n".join(f"- {line}: {', '.join(names)}" for line, names in lines.items())


def page(scale: str, runs: Sequence[Finished]) -> str:
    """Returns claims, tables and figures of all experiments as one page."""
    parts = [html.prose(f"At --scale={scale}. {where(runs)}")]
    for one, _ in runs:
        parts += [html.heading(one.experiment.name), *report.results(one), *report.details(one)]
    return html.page("All experiments", *parts, html.heading("Cost"), html.table(costs_of(runs)))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
