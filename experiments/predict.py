"""Predicts the rows of your own file with a saved model.

The model is the directory `model/` of a run of train, or what `Predictor.save` wrote.
The columns are those of the training. Flags may name other ids, times and targets; features and
covariates keep their names. The output has the ids of the rows, and for answers at every time step
or forecasts the time, too.

Command: scripts/run predict --model=runs/mine/model --data=new.csv --out=predictions.csv
Cost: seconds
Expect: one line a row, a time step or a time ahead
Method and all flags: docs/experiments.md#predict
"""

import csv
import dataclasses
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import lstm_jax as lj
from experiments.common import flags, own_data, runner, terminal
from experiments.common.flags import PLATFORMS, need, need_sound, setting
from experiments.common.own_data import Columns
from experiments.common.own_figures import padded
from lstm_jax.data import Sequences, Series
from lstm_jax.runs import replace_file
from lstm_jax.tasks import Forecast, Labelling, LanguageModel

NAME = "predict"
OUT = (".csv", ".npz", ".parquet")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(Columns):
    """The model, the file, and where the predictions go."""

    model: str = setting("", "the directory of a saved model")
    out: str = setting("", "a new file: .csv, .npz or .parquet")
    probabilities: bool = setting(False, "the probability of every class, too")
    levels: tuple[float, ...] = setting((0.1, 0.5, 0.9), "levels of quantiles", (0.001, 0.999))
    platform: str = setting("auto", "where it runs", choices=PLATFORMS)

    def __post_init__(self):
        need_sound(self)
        for name in ("model", "data", "out"):
            right = "need a directory" if name == "model" else "need a file"
            need(getattr(self, name) != "", name, "", right)
        out = Path(self.out)
        need(out.suffix in OUT, "out", self.out, f"need a name that ends in {' or '.join(OUT)}")
        need(not out.exists(), "out", self.out, "it exists; need a new file")
        need(out.parent.is_dir(), "out", self.out, f"{out.parent} is no directory")


def main(argv: Sequence[str]) -> int:
    """Predicts from a command line; returns 0, or 2 for bad input."""
    return terminal.command(NAME, lambda: prepared(argv))


def prepared(argv: Sequence[str]) -> Callable[[], int]:
    """Returns the work of a command line, which reports the predictions."""
    given, help_wanted = flags.parse_fields(argv, Predict)
    if help_wanted:
        example = Predict(model="model/", data="new.csv", out="new_predictions.csv")
        return runner.show_help(str(__doc__), flags.describe({NAME: example}))
    config = Predict(**given)
    runner.start(config.platform)
    with own_data.blaming("model", config.model):
        predictor = lj.load(config.model)
    table = predictions(config, predictor, columns_of(config, predictor, given), given)
    with own_data.blaming("out", config.out):
        write(Path(config.out), table)
    count = len(next(iter(table.values())))
    return lambda: terminal.write(f"{count} lines in {config.out}") or 0


def columns_of(config: Predict, predictor: lj.Predictor, given: Any) -> Columns:
    """Returns the columns of the training where flags name no others; targets are not needed."""
    file = Path(config.model) / own_data.COLUMNS_FILE
    known = json.loads(file.read_text()) if file.is_file() else {}
    if not config.data.endswith(Path(known.get("data", config.data)).suffix):
        known = {}  # the file has names of another kind
    names = [field.name for field in dataclasses.fields(Columns)]
    used = {name: given.get(name, known.get(name, "")) for name in names} | {"data": config.data}
    if not isinstance(predictor.task, Forecast | LanguageModel):
        used["target"] = ""
        names = getattr(predictor.task.known, "names", ())
        used["features"] = used["features"] or ",".join(names)
    return Columns(**used)


def predictions(
    config: Predict, predictor: lj.Predictor, columns: Columns, given: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Returns the columns of the output.

    Raises:
      ValueError: the file does not fit the model; the message names the flag.
    """
    task, levels_given = predictor.task, "levels" in given
    need_offered(config, task, levels_given)
    if config.data.endswith(".npz") and not isinstance(task, Forecast | LanguageModel):
        columns = dataclasses.replace(columns, features="", time="", static="")
    trained = [name for name in own_data.COLUMNS if name not in given]
    data: Any = own_data.read(columns, task.name, targets=False, trained=trained)
    flags_given = {name: getattr(config, name) for name in given}
    with own_data.blaming("data", config.data, flags_given):
        if isinstance(data, Series):
            return forecast_table(config, predictor, data)
        if isinstance(data, str):
            return text_table(config, predictor, data)
        name = columns.id if data.ids is not None else ""
        return rows_table(config, predictor, data, name or "id", levels_given)


def need_offered(config: Predict, task: Any, levels_given: bool) -> None:
    """Raises ValueError, with its flag, for predictions that a task does not make."""
    head = getattr(task, "head", None)  # a LanguageModel has none
    classes = head is None or head.answers in ("class", "flags")
    right = f"{config.model} predicts no classes"
    need(classes or not config.probabilities, "probabilities", True, right)
    quantiles = head is not None and bool(head.levels)
    right = f"{config.model} predicts no quantiles"
    need(quantiles or not levels_given, "levels", config.levels, right)


def forecast_table(config: Predict, predictor: lj.Predictor, data: Series) -> dict[str, np.ndarray]:
    """Returns one line for each series and time ahead."""
    task: Any = predictor.task
    levels: dict[str, Any] = {"levels": config.levels} if task.head.levels else {}
    return predictor.predict_table(data, **levels)


def rows_table(
    config: Predict, predictor: lj.Predictor, data: Sequences, id: str, levels_given: bool
) -> dict[str, np.ndarray]:
    """Returns one line a row; for labels at every time step, one line a time step."""
    task, every = predictor.task, isinstance(predictor.task, Labelling)
    ids = np.arange(len(data)) if data.ids is None else np.array(data.ids)
    answer = padded(predictor.predict(data), data.steps)
    found = _columns("prediction", answer, task.form.targets)
    if config.probabilities:
        p = padded(predictor.predict(data, probabilities=True), data.steps)
        names = task.classes or range(p.shape[-1])
        found |= {f"p_{name}": p[..., k] for k, name in enumerate(names)}
    if levels_given:
        q = padded(predictor.predict(data, levels=config.levels), data.steps)
        found |= {f"q{level:g}": q[..., k] for k, level in enumerate(config.levels)}
    if not every:
        return {id: ids} | found
    valid = data.valid()
    row, step = np.nonzero(valid)
    return {id: ids[row], "step": step} | {name: value[valid] for name, value in found.items()}


def text_table(config: Predict, predictor: lj.Predictor, data: str) -> dict[str, np.ndarray]:
    """Returns one line a symbol, with the most probable next one."""
    table = {"step": np.arange(len(data)), "symbol": np.array(list(data))}
    table["next"] = predictor.predict(data)
    if config.probabilities:
        p = predictor.predict(data, probabilities=True)
        symbols = predictor.task.vocabulary.symbols
        table |= {f"p_{symbol}": p[:, k] for k, symbol in enumerate(symbols)}
    return table


def _columns(name: str, values: np.ndarray, targets: int) -> dict[str, np.ndarray]:
    if targets == 1:
        return {name: values}
    return {f"{name}_{k}": values[..., k] for k in range(targets)}


def _in_days(column: np.ndarray) -> np.ndarray:
    """Returns times that are all at midnight as days, other columns as they are."""
    if column.dtype.kind != "M":
        return column
    days = column.astype("datetime64[D]")
    return days if (days == column).all() else column


def write(path: Path, table: dict[str, np.ndarray]) -> None:
    """Writes the columns to a file of the kind that its name says."""
    out: Any = io.BytesIO()
    if path.suffix == ".npz":
        np.savez(out, allow_pickle=False, **table)
    elif path.suffix == ".parquet":
        import pandas

        pandas.DataFrame(table).to_parquet(out)
    else:
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(table)
        columns = (map(str, _in_days(column)) for column in table.values())
        lines.writerows(zip(*columns, strict=True))
        out = io.BytesIO(text.getvalue().encode())
    replace_file(path, out.getvalue())


if __name__ == "__main__":
    sys.exit(main(sys.argv))
