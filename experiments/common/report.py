"""The report of a run, made from its records alone: summary.csv, figures and report.html."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.common import terminal
from experiments.common.flags import Config
from experiments.common.plan import Experiment
from lstm_jax.report import figures, hparams, html, tables
from lstm_jax.report.claims import Claim, at_scale
from lstm_jax.report.tables import Row
from lstm_jax.runs import CONFIG, RunDirectory, read_config, replace_file, sha256_of


def write(experiment: Experiment, config: Config, run: RunDirectory) -> None:
    """Writes summary.csv, the figures and report.html from records alone, and prints."""
    records = run.records.read()
    rows = experiment.summarise(config, records)
    with figures.theme():
        drawn = experiment.draw(config, rows, records)
        pictures = {picture: figures.png(picture.figure) for picture in drawn}
    charts = [part for picture in drawn for part in picture.interactive]
    settings = read_config(run.path)
    scale = settings["settings"]["scale"]
    claims = claims_at(experiment.claims(config, rows), scale)
    shown = at_scale(rows, scale)
    lines = experiment.every(config, records) if experiment.every else rows
    replace_file(run.path / "summary.csv", tables.csv(lines).encode())
    searched, metrics = experiment.columns(config)
    if searched and lines:
        write_hparams(run.path / "tensorboard" / "hparams", lines, searched, metrics)
    (run.path / "figures").mkdir(exist_ok=True)
    for picture, png in pictures.items():
        replace_file(run.path / "figures" / f"{picture.name}.png", png)
    write_files(run.path / "files", experiment.files(config, records))
    page = html.page(
        experiment.name,
        *results_of(experiment.doc, claims, [(png, p.caption) for p, png in pictures.items()]),
        *([html.heading("Interactive"), *charts] if charts else []),
        html.heading("Details"),
        html.folded(f"Table, {len(shown)} rows", html.table(shown)),
        html.folded("Claim, command and method", html.prose(experiment.doc)),
        html.listing("Settings and circumstances", settings),
        html.listing("Files", _manifest(run.path)),
    )
    replace_file(run.path / "report.html", page.encode())
    terminal.write(f"\n{tables.text(shown)}\n")
    if claims:
        terminal.write(f"{tables.text([claim._asdict() for claim in claims])}\n")


def write_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """Writes the other files of a report."""
    for name, content in files.items():
        directory.mkdir(exist_ok=True)
        replace_file(directory / name, content)


def claims_at(claims: Sequence[Claim], scale: str) -> list[Claim]:
    """Returns claims for display; the quick scale judges none."""
    return [Claim(**line) for line in at_scale([claim._asdict() for claim in claims], scale)]


def results_of(
    doc: str, claims: Sequence[Claim], pictures: Sequence[tuple[bytes, str]]
) -> list[str]:
    """Returns the first parts of a page: the claim, its verdicts, the figures with captions."""
    parts = [html.lead(doc.split("\n\n")[0].strip())]
    parts += [html.verdicts(claims)] if claims else []
    return parts + [html.picture(png, caption) for png, caption in pictures]


def write_hparams(
    directory: Path, lines: Sequence[Row], settings: Sequence[str], metrics: Sequence[str]
) -> None:
    """Writes TensorBoard's HParams tab; a failure to write stops nothing."""
    try:
        hparams.write(directory, lines, settings, metrics)
    except OSError as error:
        print(f"note: {directory} cannot be written ({error.strerror})", file=sys.stderr)


def _manifest(path: Path) -> dict[str, str]:
    """Returns the SHA-256 of every permanent file except the report."""
    files = [path / CONFIG, path / "records.jsonl", path / "summary.csv"]
    files += sorted(
        file for part in ("figures", "files", "params") for file in path.glob(f"{part}/*")
    )
    return {str(file.relative_to(path)): sha256_of(file) for file in files}
