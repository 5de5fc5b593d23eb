"""List the experiments with their claim and cost; with a NAME, check that it is one.

It needs the standard library alone: it reads the experiments and does not import them.
"""

import ast
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "experiments"


def experiments(folder: Path) -> dict[str, tuple[str, str]]:
    """Returns each experiment's claim (its docstring's first line) and its line `Cost: ...`."""
    found = {}
    for path in sorted(folder.glob("*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines = docstring.splitlines()
        costs = [line.removeprefix("Cost:").strip() for line in lines if line.startswith("Cost:")]
        if costs:
            found[path.stem] = (lines[0], costs[0])
    return found


def main(name: str | None = None) -> int:
    """Prints the list, or returns 2 with one line on stderr if `name` is not in it."""
    known = experiments(FOLDER)
    if name is None:
        print("scripts/run NAME [FLAG...], where NAME is one of")
        for stem, (claim, cost) in known.items():
            print(f"\n  {stem}\n      {claim}\n      Cost: {cost}")
    elif name not in known:
        print(f"run: no experiment '{name}': choose from {', '.join(known)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
