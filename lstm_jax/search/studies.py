"""Proposals of optuna for the next trials, from the results so far.

Each call makes a new study, so only samplers without a state are offered: CMA-ES and quasi-Monte
Carlo would continue differently after a resume.
"""

import importlib.util
import warnings
from collections.abc import Sequence
from typing import Any

from lstm_jax.search.space import Choice, Space, Values

NEEDS = {"tpe": ("optuna",), "multivariate_tpe": ("optuna",), "gp": ("optuna", "torch")}
SAMPLERS = tuple(NEEDS)
WORST = 1e30  # the score of a diverged trial: some samplers refuse infinity


def check(sampler: str) -> None:
    """Raises ValueError if what a sampler needs is not installed."""
    missing = [name for name in NEEDS[sampler] if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"{sampler} needs {' and '.join(missing)}: pip install {missing[0]}")


def propose(
    space: Space, tried: Sequence[tuple[Values, float]], count: int, *, seed: int, sampler: str
) -> list[dict[str, Any]]:
    """Returns the next `count` points of a space, from the arguments alone.

    Args:
      space: the space.
      tried: points with their scores; less is better, inf where one diverged.
      count: of points.
      seed: of the sampler; different for each call.
      sampler: one of `SAMPLERS`.
    """
    import optuna  # an extra, and slow to import

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of its options are called experimental
        study = optuna.create_study(sampler=_sampler(optuna, sampler, seed))
        distributions = {name: _distribution(optuna, space, name) for name in space.free}
        for values, score in tried:
            point = {name: values[name] for name in space.free}
            done = optuna.trial.create_trial(
                params=point, distributions=distributions, value=min(score, WORST)
            )
            study.add_trial(done)
        points = [study.ask(distributions).params for _ in range(count)]
    fixed = {n: d.ends()[0] for n, d in space.parameters if n not in space.free}
    return [{name: {**fixed, **point}[name] for name, _ in space.parameters} for point in points]


def _sampler(optuna: Any, name: str, seed: int) -> Any:
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed, deterministic_objective=False)
    joint = name == "multivariate_tpe"
    return optuna.samplers.TPESampler(seed=seed, constant_liar=True, multivariate=joint)


def _distribution(optuna: Any, space: Space, name: str) -> Any:
    domain, kinds = space[name], optuna.distributions
    if isinstance(domain, Choice):
        return kinds.CategoricalDistribution(domain.values)
    kind = kinds.IntDistribution if domain.whole else kinds.FloatDistribution
    return kind(domain.low, domain.high, log=domain.logarithmic)
