"""The command line as one frozen config, with a checked flag for every field.

An experiment subclasses `Config` and gives each field a default, a help text, and its bounds or
choices with `setting`; `Config` checks them. It checks conditions on several fields in
`__post_init__` with `need`. Its scales are three such configs. A flag replaces the field of its
name in the config of the scale.
"""

import contextlib
import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args, get_type_hints

from absl import flags

from lstm_jax.engines import ENGINES
from lstm_jax.training import BATCHINGS, MAX_SEED

SCALES = ("quick", "small", "paper")
PLATFORMS = ("auto", "cpu", "gpu", "tpu")
WORDS = {int: "a whole number", float: "a number", str: "a word"}

PROCESSES = 10_000  # the most
OTHER_NAMES = {"lr": "learning_rate", "out": "workdir", "workdir": "out"}  # of flags

Bounds = tuple[float, float]
LENGTH: Bounds = (1, 1_000_000)
TRIALS: Bounds = (1, 20_000)  # listed one by one when a run is planned
ETA: Bounds = (2, TRIALS[1])  # of successive halving
RUNGS: Bounds = (1, 30)
BOUNDS: Mapping[Any, Bounds] = {  # by a field's name, or else its type
    "seed": (0, MAX_SEED),
    "seeds": (2, 10_000),  # two, for an interval
    "tuning_seeds": (1, 10_000),
    "trials": TRIALS,
    "hidden": (1, 1_000_000),
    "depth": (1, 64),  # layers are traced one by one
    "lag": LENGTH,
    "lags": LENGTH,
    "batch_size": (1, 1_000_000),
    int: (1, 2**31 - 1),  # int32 counts updates and indexes arrays
    float: (1e-30, 1e30),  # float32 holds these
}


def setting(
    default: Any, help_line: str, bounds: Bounds | None = None, *, choices: Collection[str] = ()
) -> Any:
    """Returns a field of a config.

    Args:
      default: its value at the default scale.
      help_line: the help text of its flag.
      bounds: the least and the largest value, elementwise; None takes those of the name or type in
        `BOUNDS`.
      choices: the words to choose from; the help text ends with them.
    """
    choices = tuple(choices)
    words = f"{help_line}: {', '.join(choices)}" if choices else help_line
    metadata = {"help": words, "bounds": bounds, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


def bounds_of(config_type: Any, name: str) -> Bounds | None:
    """Returns the least and the largest value of a field; None for strings."""
    stated = config_type.__dataclass_fields__[name].metadata["bounds"]
    return stated or BOUNDS.get(name) or BOUNDS.get(_kind(get_type_hints(config_type)[name]))


def whole(config_type: Any, name: str) -> range:
    """Returns the range of an integer field."""
    low, high = bounds_of(config_type, name) or (0, -1)
    return range(int(low), int(high) + 1)


def need_sound(config: Any) -> None:
    """Raises ValueError unless every field keeps its bounds and choices.

    A field of several values has one or more, all different.
    """
    for field in dataclasses.fields(config):
        value, choices = getattr(config, field.name), field.metadata["choices"]
        values = value if isinstance(value, tuple) else (value,)
        if bounds := bounds_of(type(config), field.name):
            for one in values:
                need(bounds[0] <= one <= bounds[1], field.name, one, f"need {spread(bounds)}")
        need(len(values) > 0, field.name, value, "need at least one")
        need(len(set(values)) == len(values), field.name, value, "need each of them once")
        for one in values if choices else ():
            need_choice(field.name, one, choices)


def need(holds: bool, flag: str, value: Any, right: str) -> None:
    """Raises ValueError with the flag, its value and `right`, unless `holds`."""
    if not holds:
        raise ValueError(f"--{flag}={shown(value)}: {right}")


def need_choice(flag: str, value: Any, choices: Sequence[Any]) -> None:
    """Raises ValueError unless a value is among `choices`."""
    need(value in choices, flag, value, f"need one of {', '.join(map(str, choices))}")


def need_few(**counts: int) -> None:
    """Raises ValueError if the flags' product is too many trials to list."""
    total, given = math.prod(counts.values()), (f"--{n}={c}" for n, c in counts.items())
    if total > TRIALS[1]:
        raise ValueError(f"{' '.join(given)}: are {total} trials, need at most {TRIALS[1]}")


def need_rungs(trials: int, unit: str, length: int, eta: int, count: int) -> None:
    """Raises ValueError, with the flag, for too few trials, steps or epochs for halving's rungs."""
    least = eta ** (count - 1)
    for name, value in (("trials", trials), (unit, length)):
        need(value >= least, name, value, f"--rungs={count} by --eta={eta} need {least} or more")


@contextlib.contextmanager
def naming(flag: str, value: Any = None) -> Iterator[None]:
    """Prefixes a ValueError with the flag, and its value if given."""
    try:
        yield
    except ValueError as error:
        named = flag if value is None else f"{flag}={shown(value)}"
        raise ValueError(f"--{named}: {error}") from None


def spread(bounds: Bounds) -> str:
    """Returns bounds as text."""
    return " to ".join(map(shown, bounds))


def shown(value: Any) -> str:
    """Returns a value as the command line writes it."""
    if isinstance(value, tuple):
        return ",".join(map(shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of an experiment; on one machine equal configs give equal records.

    Raises:
      ValueError: for a bad value, in one line with its flag.
    """

    seeds: int = setting(10, "trials reported for each setting, each from its own seed")
    seed: int = setting(0, "the first seed; the others follow it")
    steps: int = setting(1000, "updates of a trial")
    hidden: int = setting(32, "hidden units of a layer")
    engine: str = setting("auto", "the loop over time", choices=ENGINES)
    platform: str = setting("auto", "where it runs", choices=PLATFORMS)
    batching: str = setting("auto", "the trials of one device", choices=BATCHINGS)

    def __post_init__(self):
        need_sound(self)
        right = f"the last one, {self.last_seed}, is beyond {MAX_SEED}"
        need(self.last_seed <= MAX_SEED, "seed", self.seed, right)

    @property
    def tuned(self) -> range:
        """The seeds that hyperparameters are chosen on; none by default."""
        return range(self.seed, self.seed + getattr(self, "tuning_seeds", 0))

    @property
    def reported(self) -> range:
        """The seeds of the reported trials, after those of tuning."""
        return range(self.tuned.stop, self.tuned.stop + self.seeds)

    @property
    def last_seed(self) -> int:
        """The greatest seed of all trials."""
        return self.reported[-1]


class Hosts(NamedTuple):
    """The place of this process among several; all None if the cluster provides it."""

    coordinator: str | None = None  # host:port of process 0
    processes: int | None = None  # their number
    process: int | None = None  # the index of this one, from 0


class Request(NamedTuple):
    """A parsed command line."""

    given: Mapping[str, Any]  # the fields of the config that it sets
    scale: str | None  # the scale below them; None for the default
    workdir: str | None  # the directory for a new run; None for the default
    resume: str | None  # the directory of the run to continue; None for a new run
    help: bool  # whether it requests help
    hosts: Hosts | None = None  # the place among several processes; None for a single process


def parse(argv: Sequence[str], config_type: type) -> Request:
    """Parses a command line of the config's flags and the run's own flags."""
    values = _flags(config_type)
    given = _given(argv, values, config_type)
    clash = values.quick and values.scale not in (None, "quick")
    need(not clash, "scale", values.scale, "need quick, or no --quick")
    for name in ("workdir", "resume"):
        need(values[name].value != "", name, "", "need a directory")
    if values.resume:
        right = f"leave it out, to resume in {values.resume}"
        need(values.workdir is None, "workdir", values.workdir, right)
    scale = "quick" if values.quick else values.scale
    return Request(given, scale, values.workdir, values.resume, values.help, _hosts(values))


def parse_fields(argv: Sequence[str], config_type: type) -> tuple[dict[str, Any], bool]:
    """Parses a command line of the config's flags alone.

    Returns:
      The fields that it sets, and whether it requests help.
    """
    values = _fields(config_type)
    return _given(argv, values, config_type), values.help


def _given(argv: Sequence[str], values: flags.FlagValues, config_type: Any) -> dict[str, Any]:
    """Returns the fields of the config that a command line sets."""
    try:
        rest = values(list(argv))
    except flags.UnrecognizedFlagError as error:
        other = OTHER_NAMES.get(error.flagname, "")
        right = f"{error.flagvalue}: no such flag, need --{other}"  # the value is the whole word
        raise ValueError(right if other in values else str(error)) from None
    except flags.Error as error:
        raise ValueError(str(error).removeprefix("flag ")) from None
    if len(rest) > 1:
        raise ValueError(f"{rest[1]}: need flags only, as --name=value")
    names = [field.name for field in dataclasses.fields(config_type)]
    return {name: values[name].value for name in names if values[name].present}


def _hosts(values: flags.FlagValues) -> Hosts | None:
    hosts = Hosts(*(values[name].value for name in Hosts._fields))
    named = {name: value for name, value in hosts._asdict().items() if value is not None}
    for name, value in named.items():
        need(not values.distributed, name, value, "leave it out, --distributed detects it")
        need(len(named) == 3, name, value, "need --coordinator, --processes and --process together")
    if named:
        host, _, port = values.coordinator.rpartition(":")
        known = bool(host) and port.isdecimal() and 1 <= int(port) <= 65535
        need(known, "coordinator", values.coordinator, "need host:port, with a port of 1 to 65535")
        most = values.processes
        need(1 <= most <= PROCESSES, "processes", most, f"need 1 to {PROCESSES}")
        right = f"need 0 to {values.processes - 1}"
        need(0 <= values.process < values.processes, "process", values.process, right)
    return hosts if named or values.distributed else None


def usage(scales: Mapping[str, Any]) -> str:
    """Returns a line of help for each flag, with its value at each scale."""
    lines = [
        f"  --scale={'|'.join(SCALES)}: how much to compute (small)",
        "  --quick: the same as --scale=quick",
        "  --workdir=DIR: a new directory for the run (runs/<experiment>-<time>)",
        "  --resume=DIR: continue the run in DIR, with its own settings",
        "  --distributed: one of several processes, detected from a TPU pod or SLURM (not)",
        "  --coordinator=HOST:PORT --processes=N --process=I: the same, given here (alone)",
    ]
    return "\n".join([*lines, describe(scales)])


def describe(configs: Mapping[str, Any]) -> str:
    """Returns a line of help for each field, with its value in each named config."""
    lines, first = [], next(iter(configs.values()))
    for field in dataclasses.fields(first):
        bounds = bounds_of(type(first), field.name)
        values = {name: shown(getattr(config, field.name)) for name, config in configs.items()}
        same = len(set(values.values())) == 1
        default = shown(getattr(first, field.name))
        default = default if same else ", ".join(f"{s} {v}" for s, v in values.items())
        default = "; ".join(filter(None, (default, spread(bounds) if bounds else "")))
        lines.append(f"  --{field.name}: {field.metadata['help']} ({default or 'none'})")
    return "\n".join(lines)


class _Parser(flags.ArgumentParser):
    """Parses one value of a type, or several separated by commas."""

    def __init__(self, hint: Any):
        self.several = bool(get_args(hint))
        self.kind = _kind(hint)
        words = WORDS[self.kind]
        self.words = words.removeprefix("a ") + "s separated by commas" if self.several else words
        self.syntactic_help = self.words

    def parse(self, argument: str) -> Any:
        try:
            parts = [self.kind(part) for part in argument.split(",")] if self.several else None
            return self.kind(argument) if parts is None else tuple(parts)
        except ValueError:
            raise ValueError(f"need {self.words}") from None

    def flag_type(self) -> str:
        return self.words


def _kind(hint: Any) -> Any:
    """Returns the type of a field, or of its elements."""
    return get_args(hint)[0] if get_args(hint) else hint


def _flags(config_type: type) -> flags.FlagValues:
    values = _fields(config_type)
    flags.DEFINE_boolean("quick", False, "", flag_values=values)
    flags.DEFINE_enum("scale", None, SCALES, "", flag_values=values)
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    flags.DEFINE_string("resume", None, "", flag_values=values)
    flags.DEFINE_boolean("distributed", False, "", flag_values=values)
    for name, kind in (("coordinator", str), ("processes", int), ("process", int)):
        flags.DEFINE(_Parser(kind), name, None, "", flag_values=values)
    return values


def _fields(config_type: Any) -> flags.FlagValues:
    """Returns a flag for each field of a config, and one for help."""
    values = flags.FlagValues()
    flags.DEFINE_boolean("help", False, "", flag_values=values)
    for name, hint in get_type_hints(config_type).items():
        if hint is bool:
            flags.DEFINE_boolean(name, None, "", flag_values=values)
        else:
            flags.DEFINE(_Parser(hint), name, None, "", flag_values=values)
    return values
