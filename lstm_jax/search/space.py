"""Search spaces: a line of text with the settings and their values, and points of such a space.

    learning_rate=log:1e-4:1e-1 forget_bias=uniform:-2:6 cell=lstm,gru hidden=int:8:64 clip=1

Each word has a parameter and its values: `log`, `uniform`, `int` or `logint` between two numbers,
ends included; a choice of several values; or one fixed value. A parameter is a field of `Trials`,
the initial bias of a gate, or structure, which the caller names and which is compiled in.
"""

import dataclasses
import itertools
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lstm_jax.cells import GRU, Cell, Zoneout
from lstm_jax.training.trials import Trials, make_trials

# Fields of Trials that hold numbers by name: how their parameters begin.
BIAS, ZONEOUT = "bias_", "zoneout_"
BY_NAME = {"gate_bias": BIAS, "zoneout": ZONEOUT}
NUMBERS = tuple(name for name in Trials._fields if name not in ("seed", *BY_NAME))
GATES = {"forget_bias": "f", "input_bias": "i", "output_bias": "o"}
EXACT = 2**53  # whole numbers up to here are floats, too
KEEPS: dict[type[Cell], str] = {GRU: "z"}  # the block that keeps, where it is not called f

Value = float | int | str
Values = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Numbers between two, all equally likely."""

    low: float
    high: float

    logarithmic = False
    whole = False

    def __post_init__(self):
        _check_range(self.low, self.high)

    def sample(self, u: float) -> Value:
        """Returns the value at `u` of [0, 1)."""
        return self.low + u * (self.high - self.low)

    def grid(self, points: int) -> list[Value]:
        """Returns evenly spaced values, both ends among them."""
        return [self.sample(i / (points - 1)) for i in range(points)]

    def ends(self) -> tuple[Value, ...]:
        """Returns the values between which all others are."""
        return self.low, self.high

    def __str__(self) -> str:
        return f"{type(self).__name__.lower()}:{self.low:g}:{self.high:g}"


@dataclasses.dataclass(frozen=True)
class Log(Uniform):
    """Positive numbers between two, whose logarithms are equally likely."""

    logarithmic = True

    def __post_init__(self):
        _check_positive(self.low)
        super().__post_init__()

    def sample(self, u: float) -> Value:
        """Returns the value at `u` of [0, 1)."""
        value = math.exp(math.log(self.low) + u * math.log(self.high / self.low))
        return min(max(value, self.low), self.high)


@dataclasses.dataclass(frozen=True)
class Int(Uniform):
    """Whole numbers from one to another, all equally likely."""

    low: int
    high: int

    whole = True

    def sample(self, u: float) -> Value:
        """Returns the value at `u` of [0, 1)."""
        return self.low + math.floor(u * (self.high - self.low + 1))

    def grid(self, points: int) -> list[Value]:
        """Returns about evenly spaced whole numbers, both ends among them, each once."""
        even = (self.low + i / (points - 1) * (self.high - self.low) for i in range(points))
        return sorted({round(value) for value in even})


@dataclasses.dataclass(frozen=True)
class LogInt(Int):
    """Whole positive numbers from one to another: one whose logarithm is even, rounded.

    P(n) is in proportion to log((n + 1/2) / (n - 1/2)).
    """

    logarithmic = True

    def __post_init__(self):
        _check_positive(self.low)
        super().__post_init__()

    def sample(self, u: float) -> Value:
        """Returns the value at `u` of [0, 1)."""
        below, above = math.log(self.low - 0.5), math.log(self.high + 0.5)
        value = round(math.exp(below + u * (above - below)))
        return min(max(value, self.low), self.high)

    def grid(self, points: int) -> list[Value]:
        """Returns whole numbers in about even ratios, both ends among them, each once."""
        ratio = self.high / self.low
        return sorted({round(self.low * ratio ** (i / (points - 1))) for i in range(points)})


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of some values, all equally likely; of a single one it is fixed."""

    values: tuple[Value, ...]

    logarithmic = whole = False

    def __post_init__(self):
        if len(set(self.values)) < len(self.values):
            raise ValueError("need each value once")

    def sample(self, u: float) -> Value:
        """Returns the value at `u` of [0, 1)."""
        return self.values[math.floor(u * len(self.values))]

    def grid(self, points: int) -> list[Value]:
        """Returns all values; `points` has no effect."""
        del points
        return list(self.values)

    def ends(self) -> tuple[Value, ...]:
        """Returns all values."""
        return self.values

    def __str__(self) -> str:
        return ",".join(v if isinstance(v, str) else f"{v:g}" for v in self.values)


Domain = Uniform | Choice
RANGES = {"log": Log, "uniform": Uniform, "int": Int, "logint": LogInt}


@dataclasses.dataclass(frozen=True)
class Space:
    """Parameters by name, each with its domain, in the order they were written.

    Attributes:
      parameters: pairs of a name and a domain.
    """

    parameters: tuple[tuple[str, Domain], ...]

    def __getitem__(self, name: str) -> Domain:
        return dict(self.parameters)[name]

    def __contains__(self, name: str) -> bool:
        return name in dict(self.parameters)

    def __str__(self) -> str:
        return " ".join(f"{name}={domain}" for name, domain in self.parameters)

    @property
    def free(self) -> tuple[str, ...]:
        """The names of the parameters that are not fixed."""
        return tuple(name for name, domain in self.parameters if len(set(domain.ends())) > 1)

    def draw(self, seed: int, index: int) -> dict[str, Any]:
        """Returns the values of a random point, which depends on the seed and its index alone.

        A parameter's value depends on its own name and domain besides, and on no other parameter.
        """
        return {
            name: domain.sample(np.random.default_rng([seed, index, _number(name)]).random())
            for name, domain in self.parameters
        }

    def grid(self, points: int) -> list[dict[str, Any]]:
        """Returns every combination of `points` values of each range and all values of a choice.

        The last parameter changes fastest.
        """
        axes = [
            [(name, value) for value in domain.grid(points)] for name, domain in self.parameters
        ]
        return [dict(combination) for combination in itertools.product(*axes)]

    def grid_size(self, points: int) -> int:
        """Returns how many combinations `grid` has."""
        return math.prod(len(domain.grid(points)) for _, domain in self.parameters)


def parse(text: str, structure: Mapping[str, Any]) -> Space:
    """Reads a space.

    Args:
      text: words like `name=log:low:high`, see the module.
      structure: the names that are neither fields of `Trials` nor biases: a `range` of whole
        numbers, or the words to choose from.

    Raises:
      ValueError: a word that is none, a name that is unknown or there twice, low >= high, the
        logarithm of a number that is not positive, an empty choice, a value that is none or out of
        range; the message names the parameter.
    """
    parameters: dict[str, Domain] = {}
    for word in text.split():
        name, equals, domain = word.partition("=")
        if not equals:
            raise ValueError(f"{word}: need words like name=log:low:high or name=value,value")
        _check_name(name, structure)
        if name in parameters:
            raise ValueError(f"{name} is there twice")
        try:
            parameters[name] = _domain(domain, structure.get(name, float))
            _check_values(name, parameters[name], structure)
        except ValueError as error:
            raise ValueError(f"{word}: {error}") from None
    if not parameters:
        raise ValueError("need at least one parameter, as name=log:low:high")
    return Space(tuple(parameters.items()))


def trials(points: Sequence[Values], seeds: Sequence[int], cell: Cell) -> Trials:
    """Returns Trials at points of a space, with defaults for all other fields.

    Args:
      points: R points with the same names; structure among them is ignored.
      seeds: R seeds, one for each point.
      cell: the cell, which has the blocks of biases.

    Raises:
      ValueError: a value is out of its range, or the cell lacks the gate of a bias.
    """
    names = [name for name in points[0] if name in NUMBERS]
    numbers: dict[str, Any] = {name: [float(point[name]) for point in points] for name in names}
    blocks = bias_blocks(points[0], cell)
    biases = {block: [float(p[name]) for p in points] for name, block in blocks.items()}
    states = zoneout_states(points[0], cell)
    rates = {state: [float(p[name]) for p in points] for name, state in states.items()}
    return make_trials(seed=seeds, gate_bias=biases, zoneout=rates, **numbers)


def bias_blocks(names: Any, cell: Cell) -> dict[str, str]:
    """Returns the block of the cell for each of `names` that is a bias.

    Raises:
      ValueError: the cell has no such block, the block has no bias, or two names are of one block.
    """
    cell = cell.cell if isinstance(cell, Zoneout) else cell
    found: dict[str, str] = {}
    for name in filter(_is_bias, names):
        block = GATES.get(name) or name.removeprefix(BIAS)
        block = KEEPS.get(type(cell), block) if name == "forget_bias" else block
        known = [gate for gate in cell.gates if gate not in cell.unbiased]
        if block not in known:
            biases = ", ".join(f"{BIAS}{gate}" for gate in known)
            raise ValueError(f"{name}: {type(cell).__name__} has no such bias; it has {biases}")
        for other, taken in found.items():
            if taken == block:
                raise ValueError(f"{name} and {other} are the same bias of {type(cell).__name__}")
        found[name] = block
    return found


def zoneout_states(names: Any, cell: Cell) -> dict[str, str]:
    """Returns, for each of `names` that is a rate of zoneout, the state that it belongs to.

    Raises:
      ValueError: the cell has no such state.
    """
    found = {n: n.removeprefix(ZONEOUT) for n in names if n.startswith(ZONEOUT)}
    for name, state in found.items():
        if state not in cell.states:
            states = ", ".join(f"{ZONEOUT}{known}" for known in cell.states)
            raise ValueError(f"{name}: {type(cell).__name__} has no such state; it has {states}")
    return found


def rungs(
    trials: int, steps: int, eta: int, count: int, unit: str = "updates"
) -> list[tuple[int, int]]:
    """Returns (trials, steps done at its end) of each rung of successive halving.

    Rung k of K has ceil(trials / eta^k) trials, which end it after steps / eta^(K - 1 - k) steps;
    `unit` is their name in messages.

    Raises:
      ValueError: fewer steps or trials than so many rungs need.

    Source: Jamieson & Talwalkar 2016; in this form Li et al. 2018.
    """
    if steps < eta ** (count - 1):
        raise ValueError(f"{count} rungs by {eta} need {eta ** (count - 1)} {unit}, got {steps}")
    if trials < eta ** (count - 1):
        raise ValueError(f"{count} rungs by {eta} need {eta ** (count - 1)} trials, got {trials}")
    return [
        (math.ceil(trials / eta**k), round(steps / eta ** (count - 1 - k))) for k in range(count)
    ]


def ranked(scores: Sequence[float]) -> list[int]:
    """Returns the places of the scores, best (least) first; of equals the first; without inf."""
    order = np.argsort(np.asarray(scores, float), kind="stable")
    return [int(i) for i in order if np.isfinite(scores[i])]


def _is_bias(name: str) -> bool:
    return name in GATES or name.startswith(BIAS)


def _check_name(name: str, structure: Mapping[str, Any]) -> None:
    by_name = _is_bias(name) or name.startswith(ZONEOUT)
    if name not in structure and name not in NUMBERS and not by_name:
        known = [*structure, *NUMBERS, *GATES, f"{BIAS}<block>", f"{ZONEOUT}<state>"]
        own = "; structure= declares other names, and model is a function of them"
        own = "" if "cell" in structure else own
        got = name or "a nameless parameter"
        raise ValueError(f"{got} is unknown: need {', '.join(known)}{own}")


def _check_values(name: str, domain: Domain, structure: Mapping[str, Any]) -> None:
    """Raises ValueError for values that a trial, or the structure, cannot have."""
    if name in NUMBERS:
        for value in domain.ends():
            settings: dict[str, Any] = {name: float(value)}
            make_trials(**settings)
    elif name.startswith(ZONEOUT):
        for value in domain.ends():
            make_trials(zoneout={name.removeprefix(ZONEOUT): float(value)})
    elif isinstance(allowed := structure.get(name), range):
        if not isinstance(domain, Int | Choice):
            raise ValueError("need whole numbers: int, logint or a choice")
        if not all(value in allowed for value in domain.ends()):
            raise ValueError(f"need {allowed[0]} to {allowed[-1]}")
    elif _is_bias(name):
        for value in domain.ends():
            make_trials(gate_bias={name: float(value)})


def _domain(text: str, kind: Any) -> Domain:
    head, *ends = text.split(":")
    if not ends:
        return Choice(_choices(text, kind))
    if head not in RANGES:
        raise ValueError(f"need {', '.join(RANGES)} or a choice, got {head}")
    if kind is not float and not isinstance(kind, range):
        raise ValueError(f"need a choice of {', '.join(kind)}")
    if len(ends) != 2:
        raise ValueError(f"need {head}:low:high")
    number = int if RANGES[head].whole else float
    return RANGES[head](*(_value(end, number) for end in ends))


def _choices(text: str, kind: Any) -> tuple[Value, ...]:
    if not text:
        raise ValueError("the choice is empty")
    return tuple(_value(part, kind) for part in text.split(","))


def _value(text: str, kind: Any) -> Value:
    if kind is float or kind is int or isinstance(kind, range):
        return _read(text, float if kind is float else int)
    if text not in kind:
        raise ValueError(f"need one of {', '.join(kind)}, got {text or 'nothing'}")
    return text


def _read(text: str, kind: type[float] | type[int]) -> float | int:
    try:
        value = kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        hint = ": spaces divide entries, without commas" if text.endswith(",") else ""
        raise ValueError(f"need {what}, got {text or 'nothing'}{hint}") from None
    if kind is int and abs(value) > EXACT:
        raise ValueError(f"need whole numbers up to {EXACT}, got {text}")
    return value


def _check_range(low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("need finite numbers")
    if low >= high:
        raise ValueError(f"low must be below high, got {low:g} and {high:g}")


def _check_positive(low: float) -> None:
    if low <= 0:
        raise ValueError(f"a logarithm needs numbers above 0, got {low:g}")


def _number(name: str) -> int:
    return zlib.crc32(name.encode())
