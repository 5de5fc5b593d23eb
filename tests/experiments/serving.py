"""The lines that the predict command writes with a model of a run."""

import csv
from pathlib import Path

from experiments import predict


def predicted(model: Path, data: Path, *flags: str) -> list[dict[str, str]]:
    """Returns the lines of `scripts/run predict`."""
    out = data.with_name("predictions.csv")
    line = ["predict", f"--model={model}", f"--data={data}", f"--out={out}", *flags]
    assert predict.main(line) == 0
    return list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
