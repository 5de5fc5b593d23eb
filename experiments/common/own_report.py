"""The report of a training on your own file: scores beside a baseline, figures, what mattered."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import lstm_jax as lj
from experiments.common import own_figures, terminal
from lstm_jax.report import figures, html, tables
from lstm_jax.report.ledger import Record
from lstm_jax.report.statistics import wilson
from lstm_jax.report.tables import Row
from lstm_jax.runs import RunDirectory, read_config, replace_file

# The first that a task has decides; True where larger is better.
DECIDES = {"bits per character": False, "accuracy": True, "RMSE": False, "MASE": False}
TRIED = ("learning_rate", "dropout", "seed")


class Found(NamedTuple):
    """A finished training."""

    config: Any  # of the command line
    data: Any  # divided: a `Split`, `Windows` or a `Text`
    task: Any  # the task over them
    result: lj.Result  # of `fit`
    best: lj.Predictor  # the network with the least validation loss
    together: lj.Predictor  # the networks of all seeds of its setting
    split: str  # on which they are scored, "test" where there is one
    records: Sequence[Record]  # a result for each trial


def write(found: Found, run: RunDirectory) -> None:
    """Writes summary.csv, figures/ and report.html, and prints the verdict and the scores."""
    names, scores = baseline_name(found), scores_of(found)
    headline, sentence = verdict(found, names, scores)
    with figures.theme():
        drawn = own_figures.draw(found, run.records.read())
        pictures = [(p.name, figures.png(p.figure), p.caption) for p in drawn]
    (run.path / "figures").mkdir(exist_ok=True)
    for name, png, _ in pictures:
        replace_file(run.path / "figures" / f"{name}.png", png)
    replace_file(run.path / "summary.csv", tables.csv(found.records).encode())
    mattered = hyperparameters(found.records)
    page = html.page(
        f"{found.config.task}: {Path(found.config.data).name}",
        html.heading(headline),
        html.lead(sentence),
        html.table(rows_of(scores)),
        *(html.picture(png, caption) for _, png, caption in pictures),
        html.heading("Hyperparameters"),
        html.prose(explain(found)),
        *([html.table(mattered)] if mattered else []),
        html.heading("Details"),
        html.folded(f"All {len(found.records)} trials", html.table(found.records)),
        html.listing("Settings and circumstances", read_config(run.path)),
    )
    replace_file(run.path / "report.html", page.encode())
    terminal.write(f"\n{headline}. {sentence}\n\n{tables.text(rows_of(scores))}\n")


def scores_of(found: Found) -> dict[str, Mapping[str, float]]:
    """Returns the metrics of the best network, of all seeds of its setting, and of the baseline."""
    scores: dict[str, Mapping[str, float]] = {"best network": found.best.evaluate(found.split)}
    if len(found.together) > 1:
        name = f"ensemble of {len(found.together)} seeds"
        scores[name] = found.together.evaluate(found.split)
    return scores | {baseline_name(found): baseline(found)}


def rows_of(scores: Mapping[str, Mapping[str, float]]) -> list[Row]:
    """Returns the table of the scores; a dash where one has no such metric."""
    names = dict.fromkeys(name for some in scores.values() for name in some)
    lines = {who: {name: some.get(name) for name in names} for who, some in scores.items()}
    return [{"prediction": who, **line} for who, line in lines.items()]


def baseline_name(found: Found) -> str:
    """Returns the name of the answer that ignores the input."""
    if found.config.task == "forecast":
        return "seasonal naive" if found.data.series.season > 1 else "last value"
    if found.config.task == "text":
        return "frequencies of symbols"
    names = {"class": "most common class", "flags": "most common answers"}
    return names.get(found.task.head.answers, "mean of the targets")


def baseline(found: Found) -> dict[str, float]:
    """Returns the metrics of the baseline."""
    if found.config.task == "forecast":
        return {"MASE": found.task.seasonal_naive(found.split)}
    arrays = found.task.rows(found.split)
    constant = constant_outputs(found.task)
    rows = found.task.count(arrays)
    steps = (found.task.steps(arrays),) if found.task.readout == "every" else ()
    outputs = np.broadcast_to(constant, (1, *steps, rows, len(constant)))
    scores = found.task.scores(outputs, arrays)
    return {name: value for name, value in scores.items() if name != "AUC"}


def constant_outputs(task: Any) -> np.ndarray:
    """Returns the outputs [V] that predict the training targets best without an input."""
    if task.name == "text":
        counts = np.bincount(task.rows("train")["numbers"], minlength=task.symbols)
        return np.log(counts[: task.symbols])
    y = np.asarray(task.rows("train")["y"])
    if task.head.answers == "class":
        return np.log(np.bincount(y[y >= 0], minlength=task.output_size) + 1e-9)
    if task.head.answers == "flags":
        return np.nanmean(y, axis=tuple(range(y.ndim - 1))) - 0.5
    return np.zeros(task.output_size)


def verdict(
    found: Found, baseline: str, scores: Mapping[str, Mapping[str, float]]
) -> tuple[str, str]:
    """Returns a headline and a sentence: does the best network beat the baseline?"""
    name = next(metric for metric in DECIDES if metric in scores["best network"])
    ours, theirs = scores["best network"][name], scores[baseline][name]
    rows, interval = found.task.split_size(found.split), ""
    wins = ours > theirs if DECIDES[name] else ours < theirs
    sure = wins
    if found.config.task == "classification" and found.task.head.size != 1:
        share = wilson(round(ours * rows), rows)
        interval, sure = f" [{share.low:.3f}, {share.high:.3f}]", share.low > theirs
    headline = "The network beats the baseline" if sure else "The baseline wins"
    if wins and not sure:
        headline = "Undecided: the baseline lies within the interval"
    if ours == theirs:
        headline = "The network equals the baseline"
    if np.isnan(ours):
        headline = f"Undecided: all series are constant in training, which leaves {name} undefined"
    units = {"forecast": "windows", "text": "text"}.get(found.config.task, "rows")
    where = f"{rows} {found.split} {units}" if units != "text" else f"the {found.split} text"
    sentence = (
        f"On {where} the best network ({setting_of(found.best)}) has {name} {ours:.3g}{interval}; "
        f"the baseline, {baseline}, has {theirs:.3g}."
    )
    if found.split != "test":
        sentence += " There is no test split, and this one chose the network: expect less."
    return headline, sentence


def setting_of(predictor: lj.Predictor) -> str:
    """Returns the hyperparameters of the first network as text."""
    trials = predictor.trials
    values = {"learning rate": trials.learning_rate, "dropout": trials.dropout}
    parts = [f"{name} {value[0]:.3g}" for name, value in values.items() if value is not None]
    return ", ".join([*parts, f"seed {trials.seed[0]}"])


def ranking(records: Sequence[Record]) -> str:
    """Returns the field that ranks trials: the validation loss, else the training loss."""
    validated = any(np.isfinite(r.get("validation_loss", np.nan)) for r in records)
    return "validation_loss" if validated else "loss"


def hyperparameters(records: Sequence[Record]) -> list[Row]:
    """Returns for each hyperparameter its best and worst value, and its share of the variance.

    A value is judged by the median loss of its trials. The share is that of the variance of the
    loss between the means of the values.
    """
    response = ranking(records)
    finite = [r for r in records if np.isfinite(r[response])]
    rows = []
    for name in TRIED:
        values = sorted({float(r[name]) for r in records if name in r})
        losses = {v: [r[response] for r in finite if float(r[name]) == v] for v in values}
        judged = {v: float(np.median(some)) for v, some in losses.items() if some}
        if len(judged) < 2:
            continue
        least, most = min(judged, key=judged.__getitem__), max(judged, key=judged.__getitem__)
        row = {"hyperparameter": name, "best": least, "loss at best": judged[least]}
        row |= {"worst": most, "loss at worst": judged[most]}
        row["share of variance"] = _share([some for some in losses.values() if some])
        rows.append(row)
    return rows


def _share(groups: Sequence[Sequence[float]]) -> float:
    """Returns the variance between the groups' means, as a share of all."""
    every = np.concatenate([np.asarray(some, float) for some in groups])
    if every.var() == 0:
        return 0.0
    between = sum(len(some) * (np.mean(some) - every.mean()) ** 2 for some in groups)
    return float(between / len(every) / every.var())


def explain(found: Found) -> str:
    """Returns what the table of hyperparameters shows."""
    response = ranking(found.records).replace("_", " ")
    trials, diverged = len(found.records), int(np.sum(found.result.status == "diverged"))
    if trials == 1:
        return "One trial was trained: give --learning_rate several values to compare them."
    return (
        f"The median {response} of the best and of the worst value of each hyperparameter, over "
        f"{trials} trials, of which {diverged} diverged. A share of the variance that belongs to "
        "the seed is noise."
    )
