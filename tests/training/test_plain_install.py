"""An install brings what it is for: the public face its core, the command line its extra."""

import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.processes import run

# Hides every distribution that `pip install lstm_jax[EXTRA]` does not bring.
PLAIN = """
import importlib.metadata as metadata
import re, sys

def brought(distribution, found, extra=""):
    name = re.sub(r"[-_.]+", "-", distribution).lower()
    if name not in found:
        found.add(name)
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            return found
        for requirement in requirements:
            if "extra ==" not in requirement or extra and f'extra == "{extra}"' in requirement:
                brought(re.match(r"[\\w.-]+", requirement)[0], found)
    return found

kept = brought("lstm_jax", set(), EXTRA)
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
from lstm_jax import interop
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

task = lj.tasks.Recall(lag=2)
model = lj.nn.SequenceSpec(lj.cells.LSTM(2), task.input_size, task.output_size)
trials, sys.stderr = lj.make_trials(), Terminal()
with tempfile.TemporaryDirectory() as path:
    run = run_directory.RunDirectory.create(path, {"who": "x"})
    lj.fit(task, model, trials, 2, run=run)
    result = lj.fit(task, model, trials, 2)
    interop.save_model(path + "/model", model, jax.tree.map(lambda leaf: leaf[0], result.params))
    assert interop.load_model(path + "/model")[0] == model
print(*result.status, lj.evaluate(task, model, result.params, trials, sequences=2).n[0])
for kind in (lj.tasks.Digits, lj.tasks.Chorales):
    try:
        kind().sample(jax.random.key(0), 1)
    except ImportError as error:
        print(error)
"""


def lines(code: str, *arguments: str) -> list[str]:
    """What a program of its own prints."""
    done = run([sys.executable, "-c", code, *arguments])
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_public_face_runs_on_the_core_dependencies_alone() -> None:
    assert lines('EXTRA = ""' + PLAIN + USE) == [
        "finished 2",
        "the digits task needs scikit-learn: pip install 'lstm_jax[experiments]'",
        "the chorales task needs music21: pip install 'lstm_jax[experiments]'",
    ]


COMMANDS = """
from experiments import predict, train

folder = sys.argv[1]
data = f"--data={folder}/rows.parquet"
own = ["--task=regression", "--target=y", "--id=who", "--epochs=1", "--seeds=1", "--hidden=2"]
assert train.main(["train", data, *own, "--learning_rate=0.01", f"--out={folder}/run"]) == 0
for name in ("new.csv", "new.parquet"):
    command = ["predict", f"--model={folder}/run/model", data, f"--out={folder}/{name}"]
    assert predict.main(command) == 0
"""


@pytest.mark.slow
def test_the_command_line_runs_on_its_extra_alone(tmp_path: Path) -> None:
    who = [f"p{i // 3}" for i in range(60)]
    rows = pd.DataFrame({"who": who, "x": range(60), "y": [int(name[1:]) for name in who]})
    rows.to_parquet(tmp_path / "rows.parquet")
    lines('EXTRA = "experiments"' + PLAIN + COMMANDS, str(tmp_path))
    assert (
        len(pd.read_csv(tmp_path / "new.csv"))
        == len(pd.read_parquet(tmp_path / "new.parquet"))
        == 20
    )
