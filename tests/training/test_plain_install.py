"""A plain install: what the core dependencies bring is enough for the public face."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Hides every distribution that `pip install lstm_jax`, without extras, does not bring.
PLAIN = """
import importlib.metadata as metadata
import re, sys

def brought(distribution, found):
    name = re.sub(r"[-_.]+", "-", distribution).lower()
    if name not in found:
        found.add(name)
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            return found
        for requirement in requirements:
            if "extra ==" not in requirement:
                brought(re.match(r"[\\w.-]+", requirement)[0], found)
    return found

kept = brought("lstm_jax", set())
owners = {
    module: {re.sub(r"[-_.]+", "-", name).lower() for name in names}
    for module, names in metadata.packages_distributions().items()
}

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name in owners and not owners[name] & kept:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
"""

USE = """
import importlib, io, pkgutil, tempfile
import jax, numpy as np
import lstm_jax as lj
from scripts import _hlo as hlo
from lstm_jax.training import optimizers, parallel
from lstm_jax.data import packing
from lstm_jax.runs import directory as run_directory, records
from lstm_jax.search import space as search, widths

for name in ("tqdm", "tensorboardX", "matplotlib", "plotly", "sklearn", "optuna", "torch"):
    try:
        importlib.import_module(name)
    except ImportError:
        continue
    raise AssertionError(f"{name} is not hidden")

for name in lj.__all__:
    getattr(lj, name)
for module in (lj.cells, lj.diagnostics, lj.engines, lj.interop, lj.tasks):
    for name in getattr(module, "__all__", ()):
        getattr(module, name)

class Terminal(io.StringIO):
    def isatty(self):
        return True

task = lj.tasks.make("recall", lag=2)
model = lj.nn.SequenceSpec(lj.cells.LSTM(2), task.input_size, task.output_size)
trials, sys.stderr = lj.make_trials(), Terminal()
with tempfile.TemporaryDirectory() as path:
    run = run_directory.RunDirectory.create(path, {"who": "x"})
    lj.fit(task, model, trials, 2, run=run)
result = lj.fit(task, model, trials, 2)
print(*result.status, lj.evaluate(task, model, result.params, trials, sequences=2).n[0])
for name in ("digits", "chorales"):
    try:
        lj.tasks.make(name).sample(jax.random.key(0), 1)
    except ImportError as error:
        print(error)
"""


def test_the_public_face_runs_on_the_core_dependencies_alone() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PLAIN + USE], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [
        "finished 2",
        "the digits task needs scikit-learn: pip install 'lstm_jax[experiments]'",
        "the chorales task needs music21: pip install 'lstm_jax[experiments]'",
    ]
