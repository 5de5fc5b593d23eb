"""The runner of all experiments: the directory of a run, its groups in order, the report.

An experiment plans groups of trials; a group may wait for the results of others. The runner trains
each ready and unfinished group until none is left, and then reports from the records. A resume does
the same in an old directory.
"""

import contextlib
import dataclasses
import datetime
import errno
import functools
import itertools
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax

from experiments.common import estimate, flags, report, terminal
from experiments.common.circumstances import changes, circumstances, user_cache
from experiments.common.flags import Config, Hosts, Request
from experiments.common.plan import Computed, Experiment
from experiments.common.terminal import Failed
from lstm_jax import search
from lstm_jax.runs import LOCK, TEMPORARY, Damaged, Preempted, RunDirectory, hosts, read_config
from lstm_jax.search import Group

AnyConfig = TypeVar("AnyConfig", bound=Any)

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)  # cannot be written on


def main(experiment: Experiment, argv: Sequence[str]) -> int:
    """Runs an experiment from its command line; returns the exit code.

    The code is 0 on success, and 2 for bad input, with one line on stderr and nothing written. It
    is 130 or 143 after an interruption, and 1 after a full disk, a damaged file or the loss of
    another process; a resume then finds all it needs. It is 141 after the reader of standard output
    is gone.
    """
    return terminal.command(experiment.name, lambda: prepared(experiment, argv))


def script(experiment: Experiment) -> None:
    """Runs an experiment as the program of this process."""
    sys.exit(main(experiment, sys.argv))


def show_help(doc: str, lines: str) -> Callable[[], int]:
    """Prints the help of a command; returns its work, which is none."""
    terminal.write(f"{doc}\nFlags:\n{lines}")
    return lambda: 0


def prepared(experiment: Experiment, argv: Sequence[str]) -> Callable[[], int]:
    """Returns the work of a command line, in the directory of its run.

    Raises:
      ValueError: for bad input, before anything is written.
      Failed: the run to resume cannot be read or written.
    """
    request = flags.parse(argv, type(experiment.scales["small"]))
    if request.help:
        return show_help(experiment.doc, flags.usage(experiment.scales))
    scale, config = started(experiment, request)
    config = config if request.resume else adapted(experiment, config)
    groups = experiment.plan(config, [])
    models = {group.name: group.model for group in groups if isinstance(group, Group)}
    with flags.naming("engine", config.engine):
        about = hosts.lead(lambda: circumstances([experiment.name, *argv[1:]], models))
    hosts.lead(lambda: estimate.need_memory(groups, config.batching, request))
    hosts.lead(lambda: estimate.need_disk_for(groups, request))
    run = open_run(experiment.name, request, scale, config, about)
    return functools.partial(carry_out, experiment, config, run)


def started(experiment: Experiment, request: Request) -> tuple[str, Config]:
    """Starts jax in one process or several; returns the scale and the config.

    With several processes, only process 0 can read the run to resume, so the command line must give
    its platform.
    """
    choose = functools.partial(chosen, experiment.name, experiment.scales, request)
    if request.hosts is None:
        scale, config = choose()
        start(config.platform)
        return scale, config
    own = choose() if request.resume is None else None
    platform_name = own[1].platform if own else request.given.get("platform", "auto")
    join(request.hosts)
    start(platform_name)
    hosts.check_devices()
    hosts.check_alike("the command line", request._replace(hosts=None))
    scale, config = own or hosts.lead(choose)
    right = f"{request.resume} started with {config.platform}; several processes must give it"
    flags.need(config.platform == platform_name, "platform", platform_name, right)
    return scale, config


def chosen(name: str, scales: Mapping[str, AnyConfig], request: Request) -> tuple[str, AnyConfig]:
    """Returns the scale and config: flags over a scale, or those of an old run."""
    if request.resume is None:
        scale = request.scale or "small"
        return scale, dataclasses.replace(scales[scale], **request.given)
    scale, config = stored(name, type(scales["small"]), request.resume)
    asked = {"scale": request.scale or scale, **request.given}
    need_unchanged(asked, {"scale": scale, **vars(config)}, request.resume)
    return scale, config


def need_unchanged(asked: Mapping[str, Any], was: Mapping[str, Any], path: str) -> None:
    """Raises ValueError, with its flag, for a setting that differs from that of the old run."""
    for name, value in asked.items():
        right = f"{path} started with {flags.shown(was[name]) or 'none'}; leave it out to resume"
        flags.need(value == was[name], name, value, right)


def adapted(experiment: Experiment, config: Config) -> Config:
    """Returns the config with its machine-dependent fields set by the machine of process 0."""
    here = experiment.adapt(config)
    return hosts.lead(lambda: here)


def join(place: Hosts) -> None:
    """Makes this process one of several, before jax starts."""
    try:
        hosts.join(*place)
    except ValueError as error:
        flag = f"--coordinator={place.coordinator}" if place.coordinator else "--distributed"
        raise ValueError(f"{flag}: {error}") from None


def start(platform_name: str) -> None:
    """Chooses the platform before jax starts; each CPU core becomes one device.

    Compiled programs are cached in JAX_COMPILATION_CACHE_DIR, or in the user's cache, so that a
    later run or a resume need not compile again.
    """
    jax.config.update("jax_num_cpu_devices", _cores())
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        here = user_cache() / platform.node()  # compiled CPU programs fit no other machine
        jax.config.update("jax_compilation_cache_dir", str(here))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    if platform_name != "auto":
        jax.config.update("jax_platforms", platform_name)
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # jax asserts that a plugin is installed
        named = f"--platform={platform_name}"
        if platform_name == "auto" and "JAX_PLATFORMS" in os.environ:
            named = f"JAX_PLATFORMS={os.environ['JAX_PLATFORMS']}"
        reason = (str(error) or "it is not installed").splitlines()[0]
        raise ValueError(f"{named}: jax finds none here ({reason})") from None


def open_run(
    name: str, request: Request, scale: str, config: Any, about: Mapping[str, Any]
) -> RunDirectory:
    """Makes the directory of a new run, or opens the run to resume."""
    if request.resume is not None:
        return resumed(request.resume, about)
    settings = {"experiment": name, "scale": scale, **dataclasses.asdict(config)}
    return new_run(settings, about, request.workdir)


def resumed(path: str, about: Mapping[str, Any]) -> RunDirectory:
    """Opens the run to resume; prints on stderr each change that may change numbers."""
    try:
        for change in hosts.lead(lambda: changes(read_config(Path(path))["about"], about)):
            write(f"note: {change}", file=sys.stderr)
        return RunDirectory.resume(path)
    except OSError as error:
        raise Failed(disk_fault(error, Path(path))) from None


def new_run(
    settings: Mapping[str, Any], about: Mapping[str, Any], path: str | None, flag: str = "workdir"
) -> RunDirectory:
    """Makes the directory of a new run, the default one without a path."""
    made = hosts.lead(lambda: new_directory(settings["experiment"], path, flag))
    with flags.naming(flag, made):
        return RunDirectory.create(made, settings, about)


def new_directory(name: str, workdir: str | None, flag: str = "workdir") -> Path:
    """Returns the directory of a new run; a default one is made at once.

    Two runs so never share a default directory.
    """
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    path = Path(workdir or f"runs/{name}-{now}")
    with flags.naming(flag, path):
        try:
            if workdir is None:
                return _made(path)
            need_empty(path)
        except OSError as error:
            raise ValueError(error.strerror) from None
    return path


def need_empty(path: Path) -> None:
    """Raises ValueError for a file, or for a directory that contains a run's files."""
    if path.exists() and not path.is_dir():
        raise ValueError("is a file; need a new directory")
    left = [p for p in path.iterdir() if p.name != LOCK] if path.exists() else []
    if not all(TEMPORARY.search(p.name) for p in left):
        raise ValueError("is not empty; need a new directory, or --resume for a run in it")


def carry_out(experiment: Experiment, config: Config, run: RunDirectory) -> int:
    """Trains all unfinished groups, then writes the report; returns the exit code."""

    def work():
        train_all(experiment, config, run)
        experiment.save(config, run)
        hosts.lead(lambda: report.write(experiment, config, run))

    try:
        return guarded(run, work)
    except BaseException:
        if hosts.several():
            traceback.print_exc()
            hosts.leave(1)
        raise


def guarded(run: RunDirectory, work: Callable[[], int | None]) -> int:
    """Works in the directory of a run; returns the exit code, see `main`."""
    wall, processor = time.monotonic(), time.process_time()
    again = f"to continue: --resume={run.path}"
    try:
        write(f"run directory: {run.path}")
        code = work() or 0
    except Preempted:
        write(f"stopped; {again}", file=sys.stderr)
        return 143
    except KeyboardInterrupt:
        write(f"stopped; {again}", file=sys.stderr)
        return hosts.leave(130)
    except hosts.Lost as lost:
        print(f"stopped: {lost}; {again}", file=sys.stderr)
        return hosts.leave(1)
    except terminal.Silenced as silenced:
        write(f"stopped: {silenced}; {again}", file=sys.stderr)
        return hosts.leave(silenced.code)
    except (Damaged, Failed) as error:
        write(f"stopped: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        write(f"stopped: {disk_fault(error, run.path)}", file=sys.stderr)
        return 1
    wall, processor = time.monotonic() - wall, time.process_time() - processor
    write(f"took {wall:.0f} s and {processor:.0f} s of processor time")
    write(f"run directory: {run.path}")
    return code


def disk_fault(error: OSError, path: Path) -> str:
    """Returns what is wrong and right for a full disk or a removed directory.

    Raises:
      OSError: if the error is neither.
    """
    if error.errno in FULL:
        right = f"saved files are intact; with free space continue: --resume={path}"
        return f"{error.strerror} ({path}); {right}"
    if path.absolute() in Path(str(error.filename)).absolute().parents:
        right = f"restore the run's directory; then continue: --resume={path}"
        return f"{error.strerror} ({error.filename}); {right}"
    raise error


def write(line: str, file: Any = None) -> None:
    """Prints a line, in process 0 alone."""
    if hosts.leads() and file is None:
        terminal.write(line)
    elif hosts.leads():
        print(line, file=file, flush=True)


def train_all(experiment: Experiment, config: Config, run: RunDirectory) -> None:
    """Trains every ready and unfinished group, until none is left."""
    while True:
        groups, finished = experiment.plan(config, run.read()), run.finished()
        left = [group for group in groups if group.name not in finished]
        if not left:
            return
        group = next(g for g in left if isinstance(g, Computed) or g.trials is not None)
        hosts.lead(lambda group=group: estimate.need_disk(run.path, [group]))
        write(f"[{groups.index(group) + 1}/{len(groups)}] {group.name}")
        if isinstance(group, Computed):
            run.finish(group.name, *hosts.lead(group.compute))
        else:
            search.train(group, run, batching=config.batching)


def stored(name: str, kind: type[AnyConfig], path: str) -> tuple[str, AnyConfig]:
    """Returns the scale and config of a run, without changes to it."""
    right = f"need the directory of a run of {name}"
    with flags.naming("resume", path):
        try:
            settings = read_config(Path(path))["settings"]
            values: dict[str, Any] = {k: _tupled(v) for k, v in settings.items()}
            owner, scale = values.pop("experiment"), values.pop("scale")
            if owner != name:
                raise ValueError(f"{right}, not of {owner}")
            return scale, kind(**values)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{right} ({error})") from None


def _made(path: Path) -> Path:
    """Makes a directory of that name, or of the name with the first free number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = itertools.chain([path.name], (f"{path.name}-{n}" for n in itertools.count(2)))
    while True:
        made = path.with_name(next(names))
        with contextlib.suppress(FileExistsError):
            made.mkdir()
            return made


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
