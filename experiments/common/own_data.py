"""Data of a command line: a file, its columns, its split, and the task.

Messages of the library name arguments and columns; here they get the flag and the file.
"""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import lstm_jax as lj
from experiments.common.flags import need, setting, shown
from lstm_jax.data import Sequences, Series, Split, Text, Windows
from lstm_jax.runs import replace_file
from lstm_jax.tasks import Task, heads

ROWS = ("classification", "regression", "labelling")  # tasks over sequences
TASKS = (*ROWS, "forecast", "text")
COLUMNS = ("target", "id", "time", "features", "static", "group", "known", "past")
# The tasks for which a flag has a meaning; those not named here serve all.
FOR = {
    **dict.fromkeys(("target", "id", "time", "static"), (*ROWS, "forecast")),
    **dict.fromkeys(("features", "group"), ROWS),
    **dict.fromkeys(("known", "past", "horizon", "context"), ("forecast",)),
    "stratify": ("classification",),
    "balanced": ("classification", "labelling"),
    "head": ("regression", "forecast"),
}
HEADS = {  # "auto" is the one of the task
    "absolute": heads.Absolute,
    "squared": heads.Squared,
    "huber": heads.Huber,
    "quantiles": heads.Quantiles,
    "gaussian": heads.Gaussian,
    "student_t": heads.StudentT,
    "negative_binomial": heads.NegativeBinomial,
}
IN_ARRAYS = ("target", "id")  # what names an array of an npz file, where others have their names
SHARES = {"forecast": ("1", "1"), "text": ("0.05", "0.05")}  # that validate and test
COMMON = ("0.1", "0.2")
ADVICE = {  # of the library, as a command line takes it
    "every=True": "--task=labelling",
    "Classification names": "--task=classification names",
    "Regression predicts": "--task=regression predicts",
}
FILES = (".csv", ".parquet", ".npz")  # of rows
MODEL = "model"  # in the directory of a run
COLUMNS_FILE = "columns.json"  # in the directory of a model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """A file and the uses of its columns, by name; several are separated by commas."""

    data: str = setting("", "your file: .npz, .csv, .parquet, or any text in UTF-8")
    target: str = setting("", "column or array of the targets; y, or values of a forecast, in .npz")
    id: str = setting("", "column that names the sequence or series of a row")
    time: str = setting("", "column of dates or numbers, increasing within each id")
    features: str = setting("", "columns of the inputs; all that no other flag names")
    static: str = setting("", "columns of numbers that are constant within an id")
    known: str = setting("", "forecast: columns known ahead, such as holidays")
    past: str = setting("", "forecast: columns known only up to the present")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(Columns):
    """A file, its columns, and how its rows divide."""

    group: str = setting("", "column whose rows stay on one side of the split")
    horizon: int = setting(1, "forecast: time steps ahead", (1, 100_000))
    context: int = setting(0, "forecast: time steps read; 0 for the default", (0, 1_000_000))
    validation: str = setting("auto", "share that validates; forecast: windows of each series")
    test: str = setting("auto", "the same for the test; or another such file")
    stratify: bool = setting(False, "classification: the same share of every label in each part")
    balanced: bool = setting(False, "classes: all weigh the same, whatever their shares")
    head: str = setting("auto", "numbers: the loss and what it predicts", choices=("auto", *HEADS))


def needed(config: Any, task: str) -> None:
    """Raises ValueError, with its flag, for a setting that has no meaning for a task."""
    need(config.data != "", "data", "", "need a file")
    for field in dataclasses.fields(config):
        value, tasks = getattr(config, field.name), FOR.get(field.name, TASKS)
        right = f"it is for --task={' or '.join(tasks)}"
        need(task in tasks or value == field.default, field.name, value, right)


def read(
    columns: Columns,
    task: str,
    group: str = "",
    targets: bool = True,
    trained: Collection[str] = (),
    flag: str = "data",
) -> Sequences | Series | str:
    """Returns the data of a file.

    Args:
      columns: the file and the uses of its columns.
      task: one of `TASKS`.
      group: the column of groups.
      targets: whether rows must have targets; a forecast is made from them and needs them always.
      trained: the uses whose columns are those of a training, which no flag names.
      flag: the flag of the file, for messages.

    Raises:
      ValueError: the file or a column is missing or does not fit; the message names the flag.
    """
    path = columns.data
    if task == "text":
        return read_text(flag, path)
    with blaming(flag, path):
        have = lj.data.column_names(path)
    used = {name: getattr(columns, name, group) for name in COLUMNS}
    used = {name: value for name, value in used.items() if value}
    for name, value in used.items():
        right = f"{path} has its own names for it, leave the flag out"
        need(name in IN_ARRAYS or not path.endswith(".npz"), name, value, right)
        for one in value.split(","):
            there, others = one in have, f"but {', '.join(have)}"
            right = f"it has no column {one!r}, as the training had for {name}, {others}"
            need(there or name not in trained, flag, path, right)
            need(there, name, one, f"{path} has no such column, {others}")
    if not path.endswith(".npz"):
        required = {"id": task in ROWS, "target": targets or task == "forecast"}
        for name in (name for name, wanted in required.items() if wanted):
            right = f"need a column of {path}, one of {', '.join(have)}"
            need(name in used, name, "", right)
    given: dict[str, Any] = {
        name: value.split(",") if name in ("features", "static", "known", "past") else value
        for name, value in used.items()
    }
    named = {name: value for name, value in used.items() if name not in (*trained, "time")}
    with blaming(flag, path, named):
        if task == "forecast":
            return lj.data.read_series(path, **given)
        if task == "labelling" and not path.endswith(".npz"):
            given["every"] = True
        return lj.data.read(path, **given)


def read_text(flag: str, path: str) -> str:
    """Returns the text of a file; a ValueError names its flag."""
    with blaming(flag, path):
        return lj.data.read_text(path)


def load(config: Any) -> tuple[Split | Windows | Text, Task]:
    """Returns the divided data and the task that a config with a `Source` and a `task` describes.

    Raises:
      ValueError: as `read`, or the data do not make this task; the message names the flag.
    """
    needed(config, config.task)
    validation, test = shares(config, config.task)
    data = read(config, config.task, config.group)
    if isinstance(data, str):
        other: Any = read_text("test", config.test) if is_file(config) else test
        with blaming("data", config.data):
            text = Text(data, validation=validation, test=other)
            return text, lj.tasks.LanguageModel(text)
    if isinstance(data, Series):
        with blaming("horizon", config.horizon):
            windows = data.split(config.horizon, int(validation), int(test))
        with blaming(*(("data", config.data) if config.head == "auto" else ("head", config.head))):
            context = config.context or None
            return windows, lj.tasks.Forecast(windows, context=context, **options(config))
    others: Any = test_rows(config, data) if is_file(config) else test
    how = {name: getattr(config, name) for name in ("validation", "test", "stratify")}
    with blaming("data", config.data, how):
        split = data.split(validation, others, seed=config.seed, stratify=config.stratify)
    kinds = {
        "classification": lj.tasks.Classification,
        "regression": lj.tasks.Regression,
        "labelling": lj.tasks.Labelling,
    }
    with blaming("target", config.target or "y"):
        return split, kinds[config.task](split, **options(config))


def is_file(config: Any) -> bool:
    """Returns whether `--test` names a file, and no share."""
    if config.task == "text":
        return config.test != "auto" and Path(config.test).is_file()
    return Path(config.test).suffix in FILES


def test_rows(config: Any, data: Sequences) -> Sequences:
    """Returns the rows of the file that tests, with the columns of the training rows."""
    names = {field.name: getattr(config, field.name) for field in dataclasses.fields(Columns)}
    table = not config.test.endswith(".npz")
    used = Columns(**names | {"data": config.test, "features": ",".join(data.names) * table})
    trained = [name for name in COLUMNS if getattr(used, name, "")]
    rows = read(used, config.task, trained=trained, flag="test")
    assert isinstance(rows, Sequences)
    return rows


def options(config: Source) -> dict[str, Any]:
    """Returns the arguments of a task that flags ask for."""
    head = {} if config.head == "auto" else {"head": HEADS[config.head]()}
    return head | ({"class_weights": "balanced"} if config.balanced else {})


def shares(config: Source, task: str) -> tuple[float, float]:
    """Returns what validates and tests: shares, or windows of a forecast."""
    default = dict(zip(("validation", "test"), SHARES.get(task, COMMON), strict=True))
    given = {n: v if (v := getattr(config, n)) != "auto" else default[n] for n in default}
    if is_file(config):
        right = f"a file is for --task={' or '.join((*ROWS, 'text'))}"
        need(task != "forecast", "test", config.test, right)
        given["test"] = "0"
    whole = task == "forecast"
    right = "need a whole number of windows" if whole else "need a share of 0 to 0.9"
    found = []
    for name, value in given.items():
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if name == "test" and not whole:
            right += ", or a file"
        fits = number.is_integer() and 0 <= number <= 10_000 if whole else 0 <= number <= 0.9
        need(fits, name, value, right)
        found.append(number)
    right = f"with --validation={given['validation']} nothing is left to train"
    need(whole or sum(found) < 1, "test", given["test"], right)
    return found[0], found[1]


@contextlib.contextmanager
def blaming(flag: str, value: Any, given: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Makes one ValueError of what is wrong with data, with the flag in place of the file.

    Args:
      flag: the flag that is to blame, unless the message begins with the name of a given one.
      value: its value.
      given: other flags, with their values.
    """
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError) as error:
        said = str(error)
        if isinstance(error, OSError) and error.strerror:
            said = f"{error.strerror} ({error.filename})"
        for advice, flag_for_it in ADVICE.items():
            said = said.replace(advice, flag_for_it)
        said = said.removeprefix(f"{value}: ")
        for name, own in (given or {}).items():
            if said.startswith(f"{name} must "):
                flag, value = name, shown(own)
        raise ValueError(f"--{flag}={value}: {said}") from None


def save(config: Any, predictor: lj.Predictor, run: Path) -> None:
    """Writes the model of a run with the uses of columns, in place of one of a killed run."""
    path = run / MODEL
    shutil.rmtree(path, ignore_errors=True)
    predictor.save(path)
    columns = {field.name: getattr(config, field.name) for field in dataclasses.fields(Columns)}
    replace_file(path / COLUMNS_FILE, dumped(columns | {"task": config.task}))


def dumped(columns: Mapping[str, str]) -> bytes:
    """Returns the content of a model's `COLUMNS_FILE`: how its file was read."""
    return (json.dumps(columns, indent=2) + "\n").encode()
