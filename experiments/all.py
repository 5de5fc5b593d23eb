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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.common import flags, report, runner, terminal
from experiments.common.flags import PLATFORMS, need, need_sound, setting
from experiments.common.plan import Experiment
from lstm_jax.report import figures, html
from lstm_jax.report.claims import Claim, at_scale
from lstm_jax.report.ledger import Record
from lstm_jax.report.tables import Row, markdown
from lstm_jax.runs import (
    CONFIG,
    Damaged,
    Ledger,
    Lock,
    RecordLog,
    begin_run,
    lock_run,
    read_config,
    replace_file,
)

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
        if self.results:
            need_writable(Path(self.results))


def need_writable(path: Path) -> None:
    """Raises ValueError unless the file of `--results` can be written."""
    need(not path.is_dir(), "results", path, "need a file, not a directory")
    need(path.parent.is_dir(), "results", path, f"{path.parent} is no directory")
    need(os.access(path.parent, os.W_OK), "results", path, f"{path.parent} cannot be written")


class Begun(NamedTuple):
    """A run of all experiments: its directory, locked while `lock` lives, and its settings."""

    folder: Path
    scale: str
    config: All
    lock: Lock


class Outcome(NamedTuple):
    """The results of one experiment's run, from its records."""

    experiment: Experiment
    settings: dict[str, Any]
    table: Sequence[Row]
    claims: Sequence[Claim]
    numbers: Sequence[Row]
    pictures: Sequence[tuple[bytes, str]]
    seconds: float


def main(argv: Sequence[str]) -> int:
    """Runs the experiments; returns 0, 2 for bad input, or the code of a failure."""
    return terminal.command("all", lambda: run(argv))


def run(argv: Sequence[str]) -> int:
    """Runs `main` on an open terminal."""
    try:
        request = flags.parse(argv, All)
        if request.help:
            terminal.write(f"{__doc__}\nFlags:\n{flags.usage(dict.fromkeys(flags.SCALES, All()))}")
            return 0
        begun = begin(request)
    except ValueError as error:
        print(f"all: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # while resuming; a new run raises ValueError
        print(runner.stopped(error, Path(str(request.resume))), file=sys.stderr)
        return 1
    return carry_out(begun)


def carry_out(begun: Begun) -> int:
    """Runs the unfinished experiments and reports all finished ones; returns the exit code."""
    folder, scale, config, _ = begun
    try:
        terminal.write(f"run directory: {folder}")
        codes = run_all(folder, scale, config)
        write_results(folder, scale, config)
        terminal.write(f"run directory: {folder}")
    except terminal.Silenced as silenced:
        print(f"stopped: {silenced}; to continue: --resume={folder}", file=sys.stderr)
        return silenced.code
    except Damaged as damaged:
        print(f"stopped: {damaged}", file=sys.stderr)
        return 1
    except OSError as error:
        print(runner.stopped(error, folder), file=sys.stderr)
        return 1
    return next((code for code in codes if code), 0)


def begin(request: flags.Request) -> Begun:
    """Makes the directory of a new run, or opens an old one.

    Raises:
      ValueError: for a bad value or an unfit directory.
    """
    if request.hosts is not None:
        raise ValueError("--distributed, --coordinator: need one experiment, such as sweep")
    if request.resume is not None:
        return resumed(request, Path(request.resume))
    scale, config = request.scale or "small", All(**request.given)
    folder = runner.new_directory("all", request.workdir)
    settings = {"experiment": "all", "scale": scale, **dataclasses.asdict(config)}
    with flags.naming("workdir", folder):
        return Begun(folder, scale, config, begin_run(folder, settings, {}))


def resumed(request: flags.Request, folder: Path) -> Begun:
    """Opens an old run.

    Raises:
      ValueError: for a directory without a run, in use, or with other settings.
    """
    right = "need the directory of a run of all"
    settings = read_config(folder)["settings"]
    try:
        owner, scale = settings.pop("experiment"), settings.pop("scale")
        need(owner == "all", "resume", folder, f"{right}, not of {owner}")
        config = All(**settings | {"only": tuple(settings["only"])})
    except (KeyError, TypeError) as error:
        raise ValueError(f"--resume={folder}: {right} ({error})") from None
    for name, value in {"scale": request.scale or scale, **request.given}.items():
        was = scale if name == "scale" else getattr(config, name)
        need(value == was, name, value, f"the run started with {flags.shown(was)}; leave it out")
    return Begun(folder, scale, config, lock_run(folder))


def run_all(folder: Path, scale: str, config: All) -> list[int]:
    """Runs the unfinished experiments until one is stopped; returns the exit codes."""
    codes = []
    for name in ordered(config):
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


def ordered(config: All) -> list[str]:
    """Returns the selected experiments, cheap ones first."""
    return [name for name in ORDER if name in config.only]


def done(folder: Path) -> dict[str, float]:
    """Returns the seconds of each finished experiment, over all its parts."""
    spent = costs(folder)
    finished = [record["experiment"] for record in spent if record["code"] == 0]
    return {n: sum(r["seconds"] for r in spent if r["experiment"] == n) for n in finished}


def costs(folder: Path) -> Sequence[Record]:
    """Returns the seconds and the exit code of every part of an experiment."""
    log = RecordLog(folder / "costs.jsonl")
    kinds = {"experiment": str, "seconds": int | float, "code": int}
    records = log.read()
    for number, record in enumerate(records, start=1):
        for key, kind in kinds.items():
            if not isinstance(record.get(key), kind):
                raise Damaged(log.path, f"line {number} lacks {key}")
    return records


def load(name: str) -> Experiment:
    """Returns the experiment of that name."""
    return importlib.import_module(f"experiments.{name}").EXPERIMENT


def write_results(folder: Path, scale: str, config: All) -> None:
    """Writes the page and the list of claims of all finished experiments."""
    seconds = done(folder)
    runs = [outcome(load(n), folder / n, seconds[n]) for n in ordered(config) if n in seconds]
    text = results(scale, runs, [n for n in ordered(config) if n not in seconds])
    replace_file(folder / "results.md", text.encode())
    if config.results:
        replace_file(Path(config.results), text.encode())
    replace_file(folder / "report.html", page(scale, runs).encode())
    terminal.write(f"\n{text}")


def outcome(experiment: Experiment, path: Path, seconds: float) -> Outcome:
    """Returns the results that one run has on record."""
    settings, ledger = read_config(path), Ledger(path / "records.jsonl")
    ledger.check(path)
    config, read = runner.stored(experiment, str(path))[1], ledger.read()
    table = experiment.summarise(config, read)
    with figures.theme():
        drawn = experiment.draw(config, table, read)
        pictures = [(figures.png(picture.figure), picture.caption) for picture in drawn]
    scale = settings["settings"]["scale"]
    claims = report.claims_at(experiment.claims(config, table), scale)
    numbers = experiment.numbers(config, table)
    table = at_scale(table, scale)
    return Outcome(experiment, settings, table, claims, numbers, pictures, seconds)


def results(scale: str, runs: Sequence[Outcome], missing: Sequence[str] = ()) -> str:
    """Returns claims, results, verdicts and the table of costs as Markdown."""
    parts = [f"# Results at --scale={scale}", where(runs)]
    parts += [f"Not finished, and not on this page: {', '.join(missing)}."] if missing else []
    for run in runs:
        parts += [f"## {run.experiment.name}", run.experiment.doc.split("\n\n")[0].strip()]
        parts += [f"`scripts/run {run.experiment.name} --scale={scale}`"]
        claims = [claim._asdict() for claim in run.claims]
        parts += [markdown(claims) if claims else "It makes no claim of its own."]
        parts += [markdown(run.numbers)] if run.numbers else []
    head = ["| experiment | minutes | source |", "| --- | --- | --- |"]
    costs = [f"| {r.experiment.name} | {r.seconds / 60:.1f} | {source(r)} |" for r in runs]
    total = f"| together | {sum(run.seconds for run in runs) / 60:.1f} | |"
    return "\n\n".join([*parts, "## Cost", "\n".join([*head, *costs, total])]) + "\n"


def source(run: Outcome) -> str:
    """Returns the revision that started a run; resumed runs may differ in it."""
    about = run.settings["about"]
    changed = ", with changes" if about["uncommitted changes"] else ""
    revision = about["revision"]
    return (revision[:10] if revision else "no checkout") + changed


def where(runs: Sequence[Outcome]) -> str:
    """Returns a line for each set of devices and versions."""
    lines = {}
    for run in runs:
        about = run.settings["about"]
        devices = f"{len(about['devices'])} devices ({about['devices'][0]})"
        versions = f"jax {about['versions']['jax']}, flax {about['versions']['flax']}"
        lines.setdefault(f"{devices}, {versions}", []).append(run.experiment.name)
    if len(lines) == 1:
        return f"Made from records alone, on {next(iter(lines))}, by `scripts/run all`."
    return "\n".join(f"- {line}: {', '.join(names)}" for line, names in lines.items())


def page(scale: str, runs: Sequence[Outcome]) -> str:
    """Returns claims, tables and figures of all experiments as one page."""
    parts = [html.prose(f"At --scale={scale}. {where(runs)}")]
    for run in runs:
        doc, table = run.experiment.doc, html.table(run.table)
        parts += [html.heading(run.experiment.name)]
        parts += report.results_of(doc, run.claims, run.pictures)
        parts += [html.folded(f"Table, {len(run.table)} rows", table)]
        parts += [html.folded("Claim, command and method", html.prose(doc))]
        parts += [html.listing("Settings and circumstances", run.settings)]
    costs = [
        {"experiment": r.experiment.name, "minutes": r.seconds / 60, "source": source(r)}
        for r in runs
    ]
    return html.page("All experiments", *parts, html.heading("Cost"), html.table(costs))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
