"""Compile an experiment's training for TPUs without a TPU.

    --topology=NAME[,NAME...]  chips to compile for (v5e:2x2); v6e:2x2, v5p:2x2x1, v5e:4x4 and so on
    --experiment=NAME          the experiment (long_memory)
    --group=NAME               its group of trials (recall_100-lstm_chrono-tuning)
    --trials=R                 trials of the sweep (32), divided among all chips
    --json=FILE                file for the table as JSON

All other flags are the experiment's: --scale, --hidden, --engine, ...

Each topology has four programs: one that begins trials and one that trains them, both for one trial
on one chip and for the sweep on all chips. The exit code is 1 if a program does not fit, if its
loop communicates between chips, or if it should have a kernel (--engine=pallas) and has none.
"""

import importlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from jax.experimental import topologies

from experiments.common import runner
from experiments.common.flags import need, need_choice, parse
from lstm_jax import make_trials
from lstm_jax.engines import Pallas
from lstm_jax.report import tables
from lstm_jax.search import Group
from lstm_jax.training import lower
from lstm_jax.training.parallel import Devices
from scripts import _experiments
from scripts import _hlo as hlo

# For libtpu, which otherwise looks for a TPU in the machine and warns that there is none.
ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no lock: this process takes no chip
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_LOG_DIR": "disabled",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}


class Request(NamedTuple):
    """The programs to compile: a group's training, its batching, and the chips."""

    group: Group
    batching: str
    trials: int
    devices: dict[str, Devices]
    json: str | None


def main(argv: Sequence[str]) -> int:
    """Prints the table; returns 2 for wrong input, with one line on stderr."""
    jax.config.update("jax_platforms", "cpu")
    os.environ.update(ENVIRONMENT)
    try:
        request = read(argv)
    except ValueError as error:
        print(f"compile_tpu: {error}", file=sys.stderr)
        return 2
    if request is None:
        print(__doc__)
        return 0
    rows = []
    for row in compiled(request):
        rows.append(row)
        print(f"{row['topology']} {row['program']} x {row['trials']}: {row['fits']}", flush=True)
    print(f"\n{request.group.name}, {request.group.model.on('tpu')}\n\n{tables.text(rows)}")
    if request.json:
        Path(request.json).write_text(json.dumps({**about(request), "rows": rows}, indent=1))
    return int(not all(map(good, rows)))


def read(argv: Sequence[str]) -> Request | None:
    """Returns the request of a command line; None for help."""
    values = flags.FlagValues()
    flags.DEFINE_list("topology", ["v5e:2x2"], "", flag_values=values)
    flags.DEFINE_string("experiment", "long_memory", "", flag_values=values)
    flags.DEFINE_string("group", "recall_100-lstm_chrono-tuning", "", flag_values=values)
    flags.DEFINE_string("trials", "32", "", flag_values=values)
    flags.DEFINE_string("json", None, "", flag_values=values)
    try:
        others = values(list(argv), known_only=True)
    except flags.Error as error:
        raise ValueError(str(error).removeprefix("flag ")) from None
    trials = int(values.trials) if values.trials.isdecimal() else 0
    need(trials >= 1, "trials", values.trials, "need a whole number, 1 or more")
    folder = Path(values.json or ".").parent
    need(folder.is_dir(), "json", values.json, f"there is no folder {folder}")
    known = tuple(_experiments.experiments(_experiments.FOLDER))
    need_choice("experiment", values.experiment, known)
    experiment = importlib.import_module(f"experiments.{values.experiment}").EXPERIMENT
    given = parse(others, type(experiment.scales["small"]))
    if given.help:
        return None
    for name, value in (("workdir", given.workdir), ("resume", given.resume)):
        need(value is None, name, value, "leave it out, nothing is run")
    config = experiment.adapt(runner.chosen(values.experiment, experiment.scales, given)[1])
    need(config.platform in ("auto", "tpu"), "platform", config.platform, "need tpu, or none")
    groups = {group.name: group for group in experiment.plan(config, [])}
    need_choice("group", values.group, tuple(groups))
    groups[values.group].model.on("tpu")  # refuses an engine that cannot run it there
    devices = {name: chips(name) for name in values.topology}
    need(len(devices) > 0, "topology", "", "need one or more, such as v5e:2x2")
    return Request(groups[values.group], config.batching, trials, devices, values.json)


def chips(topology: str) -> Devices:
    """Returns the devices of a topology, none of which the machine needs."""
    installed = importlib.util.find_spec("libtpu")
    need(installed is not None, "topology", topology, 'need libtpu: pip install -e ".[tpu]"')
    alone = set(topology.partition(":")[2].split("x")) == {"1"}
    bounds = {"chips_per_host_bounds": [1, 1, 1]} if alone else {}
    try:
        return topologies.get_topology_desc(topology, "tpu", **bounds).devices
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        right = f"need chips and their grid, such as v5e:2x2, v6e:2x2 or v5p:2x2x1 ({reason})"
        raise ValueError(f"--topology={topology}: {right}") from None


def compiled(request: Request) -> Iterator[tables.Row]:
    """Yields a row for each program: one trial on one chip, then the sweep on all of them."""
    group, model = request.group, request.group.model.on("tpu")
    for topology, devices in request.devices.items():
        for count, some in ((1, devices[:1]), (request.trials, devices)):
            drawn = group.trials or make_trials()
            trials = jax.tree.map(lambda values, n=count: np.resize(values, n), drawn)
            lowered = lower(
                group.task, model, trials, some,
                batch_size=group.batch_size, batching=request.batching,
            )  # fmt: skip
            for name, program in lowered._asdict().items():
                where = {"topology": topology, "chips": len(some), "trials": count}
                fused = isinstance(model.engine, Pallas) and name == "run"
                yield {"program": name, **where, **measured(program, fused)}


def measured(program: jax.stages.Lowered, fused: bool = False) -> dict[str, Any]:
    """Returns the figures of a program, compiled for a TPU; its kernels if it is `fused`."""
    wall, processor = time.monotonic(), time.process_time()
    try:
        executable, fits = program.compile(), "yes"
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        executable, fits = None, f"no: {str(error).splitlines()[0]}"
    times = {
        "compile_s": round(time.monotonic() - wall, 1),
        "processor_s": round(time.process_time() - processor, 1),
    }
    unknown = {"peak_MB": None, "collectives": None, "kernels": None, "step_cycles": None}
    return {**(figures_of(executable, fused) if executable else unknown), **times, "fits": fits}


def figures_of(executable: jax.stages.Compiled, fused: bool) -> dict[str, Any]:
    """Returns the peak memory of each chip, collectives, kernels and cycles."""
    text, memory = executable.as_text() or "", executable.memory_analysis()
    collectives = sorted(hlo.loop_collectives(text).items())
    return {
        "peak_MB": memory and round(memory.peak_memory_in_bytes / 1e6, 3),
        "collectives": ", ".join(f"{n} {code}" for code, n in collectives) or "none",
        "kernels": hlo.kernels(text) if fused else None,
        "step_cycles": None if fused else hlo.step_cycles(text),  # none are known of a kernel
    }


def good(row: tables.Row) -> bool:
    """Returns whether a program fits, has no collectives in its loop, and has its kernels."""
    return row["fits"] == "yes" and row["collectives"] == "none" and row["kernels"] != 0


def about(request: Request) -> dict[str, Any]:
    """Returns the group, the versions and the date."""
    group = request.group
    return {
        "group": group.name,
        "task": repr(group.task),
        "model": repr(group.model.on("tpu")),
        "batch_size": group.batch_size,
        "jax": jax.__version__,
        "libtpu": metadata.version("libtpu"),
        "date": time.strftime("%Y-%m-%d"),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv))
