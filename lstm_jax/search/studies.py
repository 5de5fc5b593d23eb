"""Asking optuna what to try next, from what was tried: no study is kept, each is made anew.

Only samplers are here whose answers follow from the trials that are told; one that keeps a state of
its own (CMA-ES, quasi-Monte Carlo) would be another after a resume.
"""

import importlib.util
import warnings
from collections.abc import Sequence
from typing import Any

from lstm_jax.search.space import Choice, Int, Space, Values

NEEDS = {"tpe": ("optuna",), "multivariate_tpe": ("optuna",), "gp": ("optuna", "torch")}
SAMPLERS = tuple(NEEDS)
WORST = 1e30  # what a trial that diverged is told as: some samplers refuse infinity


def check(sampler: str) -> None:
    """Raises ValueError if what a sampler needs is not installed."""
    missing = [name for name in NEEDS[sampler] if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"{sampler} needs {' and '.join(missing)}: pip install {missing[0]}")


def ask(
    space: Space, told: Sequence[tuple[Values, float]], count: int, *, seed: int, sampler: str
) -> list[dict[str, Any]]:
    """Returns the next `count` points of a space, to be tried at once.

    They depend on the arguments alone.

    Args:
      space: the space.
      told: points tried before with their scores, lower is better, inf where one diverged.
      count: how many to ask for.
      seed: of the sampler; a number of its own for each call.
      sampler: one of `SAMPLERS`.
    """
    import optuna  # an extra, and slow to import

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of its options are called experimental
        study = optuna.create_study(sampler=_sampler(optuna, sampler, seed))
        distributions = {name: _distribution(optuna, space, name) for name in space.free}
        for values, score in told:
            point = {name: values[name] for name in space.free}
            done = optuna.trial.create_trial(
                params=point, distributions=distributions, value=min(score, WORST)
            )
            study.add_trial(done)
        asked = [study.ask(distributions).params for _ in range(count)]
    fixed = {n: d.ends()[0] for n, d in space.parameters if n not in space.free}
    return [{name: {**fixed, **point}[name] for name, _ in space.parameters} for point in asked]


def _sampler(optuna: Any, name: str, seed: int) -> Any:
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed, deterministic_objective=False)
    joint = name == "multivariate_tpe"
    return optuna.samplers.TPESampler(seed=seed, constant_liar=True, multivariate=joint)


def _distribution(optuna: Any, space: Space, name: str) -> Any:
    domain, kinds = space[name], optuna.distributions
    if isinstance(domain, Choice):
        return kinds.CategoricalDistribution(domain.values)
    kind = kinds.IntDistribution if isinstance(domain, Int) else kinds.FloatDistribution
    return kind(domain.low, domain.high, log=domain.logarithmic)
