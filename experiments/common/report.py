"""The report of a run, made from its records alone: summary.csv, figures and report.html."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.common import terminal
from experiments.common.plan import Experiment
from lstm_jax.report import figures, hparams, html, tables
from lstm_jax.report.claims import Claim, at_scale
from lstm_jax.report.figures import Picture
from lstm_jax.report.ledger import Record
from lstm_jax.report.tables import Row
from lstm_jax.runs import CONFIG, RunDirectory, read_config, replace_file, sha256_of


class Report(NamedTuple):
    """The contents of a report."""

    experiment: Experiment  # with its claim and method
    settings: Mapping[str, Any]  # the contents of config.json
    table: Sequence[Row]  # as the experiment summarises it
    claims: Sequence[Claim]  # with their verdicts; the quick scale judges none
    numbers: Sequence[Row]  # the table of results.md below the claims
    pictures: Sequence[tuple[Picture, bytes]]  # with their PNG

    @property
    def shown(self) -> Sequence[Row]:
        """The table for display; the quick scale judges nothing."""
        return at_scale(self.table, self.settings["settings"]["scale"])


def made(experiment: Experiment, config: Any, path: Path, records: Sequence[Record]) -> Report:
    """Returns the report of a run in the directory `path`."""
    settings = read_config(path)
    table = experiment.summarise(config, records)
    with figures.theme():
        drawn = experiment.draw(config, table, records)
        pictures = [(picture, figures.png(picture.figure)) for picture in drawn]
    lines = [claim._asdict() for claim in experiment.claims(config, table)]
    claims = [Claim(**line) for line in at_scale(lines, settings["settings"]["scale"])]
    return Report(experiment, settings, table, claims, experiment.numbers(config, table), pictures)


def write(experiment: Experiment, config: Any, run: RunDirectory) -> None:
    """Writes summary.csv, the figures and report.html from records alone, and prints."""
    records = run.records.read()
    report = made(experiment, config, run.path, records)
    lines = experiment.every(config, records) if experiment.every else report.table
    replace_file(run.path / "summary.csv", tables.csv(lines).encode())
    searched, metrics = experiment.columns(config)
    if searched and lines:
        write_hparams(run.path / "tensorboard" / "hparams", lines, searched, metrics)
    write_files(run.path / "figures", {f"{p.name}.png": png for p, png in report.pictures})
    write_files(run.path / "files", experiment.files(config, records))
    charts = [part for picture, _ in report.pictures for part in picture.interactive]
    page = html.page(
        experiment.name,
        *results(report),
        *([html.heading("Interactive"), *charts] if charts else []),
        html.heading("Details"),
        *details(report),
        html.listing("Files", _manifest(run.path)),
    )
    replace_file(run.path / "report.html", page.encode())
    terminal.write(f"\n{tables.text(report.shown)}\n")
    if report.claims:
        terminal.write(f"{tables.text([claim._asdict() for claim in report.claims])}\n")


def write_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """Writes files into a directory, which is made for the first."""
    for name, content in files.items():
        directory.mkdir(exist_ok=True)
        replace_file(directory / name, content)


def results(report: Report) -> list[str]:
    """Returns the first parts of a page: the claim, its verdicts, the figures with captions."""
    parts = [html.lead(claim_of(report.experiment))]
    parts += [html.verdicts(report.claims)] if report.claims else []
    return parts + [html.picture(png, picture.caption) for picture, png in report.pictures]


def details(report: Report) -> list[str]:
    """Returns the folded parts of a page: the table, the method and the settings."""
    return [
        html.folded(f"Table, {len(report.table)} rows", html.table(report.shown)),
        html.folded("Claim, command and method", html.prose(report.experiment.doc)),
        html.listing("Settings and circumstances", report.settings),
    ]


def claim_of(experiment: Experiment) -> str:
    """Returns the first paragraph of an experiment's docstring."""
    return experiment.doc.split("\n\n")[0].strip()


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
    for part in ("figures", "files", "params"):
        files += sorted(path.glob(f"{part}/*"))
    return {str(file.relative_to(path)): sha256_of(file) for file in files}
