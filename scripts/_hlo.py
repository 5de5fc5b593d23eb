"""Facts from the text of a compiled program: collectives in its loops, kernels, and cycles."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

COLLECTIVES = {
    "all-gather", "all-reduce", "all-to-all", "collective-broadcast", "collective-permute",
    "ragged-all-to-all", "recv", "reduce-scatter", "send",
}  # fmt: skip

KERNEL = "tpu_custom_call"  # the call of a Pallas kernel on a TPU

_HEADER = re.compile(r"^(?:ENTRY )?%([\w.-]+) \(.*\{$")
_OPERATION = re.compile(r"^\s+(ROOT )?%([\w.-]+) = .*? ([a-z][a-z0-9-]*)\((.*)$")
_CALLS = re.compile(r"(\w+)=\{?(%[\w.-]+(?:, %[\w.-]+)*)")
_NAME = re.compile(r"%([\w.-]+)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


class Operation(NamedTuple):
    """One operation of a computation."""

    root: bool  # whether the computation returns it
    code: str  # such as "add", "while", "all-reduce-start"
    rest: str  # the text after the opening parenthesis: operands, then attributes

    @property
    def calls(self) -> dict[str, list[str]]:
        """Attribute -> the computations it names, such as body and condition of a loop."""
        return {name: _NAME.findall(names) for name, names in _CALLS.findall(self.rest)}

    @property
    def cycles(self) -> int:
        """XLA's estimate for this operation alone; 0 if it has none."""
        found = _CYCLES.search(self.rest)
        return int(found[1]) if found else 0


Program = dict[str, dict[str, Operation]]


def parse(text: str) -> Program:
    """Returns computation -> operation's name -> operation, from `compiled.as_text()`."""
    program: Program = {}
    inside: dict[str, Operation] = {}
    for line in text.splitlines():
        if header := _HEADER.match(line):
            inside = program.setdefault(header[1], {})
        elif found := _OPERATION.match(line):
            inside[found[2]] = Operation(bool(found[1]), found[3], found[4])
    return program


def loop_collectives(text: str) -> dict[str, int]:
    """Returns the number of collectives of each kind in loops, their conditions and callees.

    Args:
      text: `compiled.as_text()`, the optimised program of one device.
    """
    program = parse(text)
    called = [name for loop in _loops(program) for name in _named(program, loop)]
    codes = [op.code for name in _reached(program, called) for op in program[name].values()]
    return dict(Counter(c for code in codes if (c := code.removesuffix("-start")) in COLLECTIVES))


def kernels(text: str) -> int:
    """Returns the number of calls of our kernels in a program for a TPU.

    Args:
      text: `compiled.as_text()`.
    """
    return text.count(f'custom_call_target="{KERNEL}"')


def step_cycles(text: str) -> int | None:
    """Returns XLA's estimate of the cycles of one iteration of the training loop.

    The training loop is the only loop whose number of iterations the program does not fix. Inner
    loops count once per iteration. The estimate is a sum over operations, not a measurement:
    operations that overlap are all counted.

    Args:
      text: `compiled.as_text()` of one such loop, compiled for a TPU.

    Returns:
      None if the compiler makes no estimates, or the program has not exactly one such loop.
    """
    program = parse(text)
    open_ended = [loop for loop in _loops(program) if _turns(program, loop) is None]
    if len(open_ended) != 1:
        return None
    return sum(_cycles(program, name) for name in _named(program, open_ended[0])) or None


def _loops(program: Program) -> list[Operation]:
    return [op for body in program.values() for op in body.values() if op.code == "while"]


def _named(program: Program, op: Operation) -> list[str]:
    return [name for names in op.calls.values() for name in names if name in program]


def _reached(program: Program, names: Iterable[str]) -> set[str]:
    """Returns the computations and all that they call, directly or indirectly."""
    reached, left = set(), list(names)
    while left:
        if (name := left.pop()) not in reached:
            reached.add(name)
            left += [n for op in program[name].values() for n in _named(program, op)]
    return reached


def _turns(program: Program, loop: Operation) -> int | None:
    """Returns N of a condition `counter < N` with counters from 0; None for any other."""
    condition = program[loop.calls["condition"][0]]
    (root,) = (op for op in condition.values() if op.root)
    if root.code != "compare" or "direction=LT" not in root.rest:
        return None
    operands = [condition[n] for n in _NAME.findall(root.rest) if n in condition]
    bounds = [int(op.rest.split(")")[0]) for op in operands if op.code == "constant"]
    return bounds[0] if bounds else None


def _cycles(program: Program, name: str) -> int:
    total = 0
    for op in program[name].values():
        inner = _named(program, op) if op.code in ("while", "conditional", "call") else []
        turns = (_turns(program, op) or 1) if op.code == "while" else 1
        total += op.cycles + turns * sum(_cycles(program, n) for n in inner)
    return total
