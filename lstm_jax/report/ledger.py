"""The records of a run: results of groups of trials, and their learning curves."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import inf
from typing import Any

from lstm_jax.report.statistics import Estimate, t_interval

Record = Mapping[str, Any]


def group(records: Iterable[Record], name: str) -> list[Record]:
    """Returns the records of one group."""
    return [record for record in records if record["group"] == name]


def results(records: Iterable[Record], name: str | None = None) -> list[Record]:
    """Returns the results of a group, or of all, in trial order; none of an unfinished group."""
    some = records if name is None else group(records, name)
    return [record for record in some if record["kind"] == "result"]


def curve(
    records: Iterable[Record], field: str, within: tuple[float, float] = (-inf, inf)
) -> tuple[list[int], list[Estimate]]:
    """Returns mean and t-interval of a field over the trials of a finished group, by step.

    A trial that stopped before the others, solved or diverged, keeps the value of its result from
    then on. A value that is no number (null) is left out. The mean cannot be outside of `within`.
    """
    records = list(records)
    trials = _histories(records, field).values()
    points = {step: [_last(history, step) for history in trials] for step in _steps(records)}
    known = {step: [v for v in values if v is not None] for step, values in points.items()}
    known = {step: values for step, values in known.items() if len(values) >= 2}
    return list(known), [t_interval(values, within) for values in known.values()]


def first_steps(records: Iterable[Record], field: str, level: float) -> list[int]:
    """Returns each trial's first step on record with `level` or more, else its last."""
    histories = _histories(records, field)
    reached = {
        trial: [step for step, value in history.items() if value is not None and value >= level]
        for trial, history in histories.items()
    }
    return [min(reached[trial], default=max(histories[trial])) for trial in sorted(reached)]


def _steps(records: Iterable[Record]) -> list[int]:
    """Returns the steps of the progress records and the last of the results."""
    steps = {r["step"] for r in records if r["kind"] == "progress"}
    return sorted(steps | {max(r["step"] for r in results(records))})


def _histories(records: Iterable[Record], field: str) -> dict[int, dict[int, float | None]]:
    """Returns the values of a field by trial and step."""
    histories: dict[int, dict[int, float | None]] = defaultdict(dict)
    for record in records:
        if field in record:
            histories[record["trial"]][record["step"]] = record[field]
    return histories


def _last(history: Mapping[int, float | None], step: int) -> float | None:
    past = [at for at in history if at <= step]
    return history[max(past)] if past else None
