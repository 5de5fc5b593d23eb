"""Training on a file: what a run leaves, after a kill too, and what is refused in one sentence."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest

import lstm_jax as lj
from experiments import predict, train
from experiments.common import own_data, runner
from lstm_jax.data import Split, Text
from lstm_jax.runs.directory import GroupLog, RunDirectory
from tests import processes
from tests.killing import Killed
from tests.products import slow

pytestmark = pytest.mark.usefixtures("standard_promotion")

ROOT = Path(__file__).parents[2]
TINY = ("--cell=rnn", "--hidden=2", "--seeds=2", "--learning_rate=1e-2", "--batch_size=8")
KIND = ("--target=kind", "--id=id", "--time=t", "--features=a")


def write_files(folder: Path) -> None:
    """Sequences with a label, a number and a label at every step; two series; a text; arrays."""
    rng = np.random.default_rng(0)
    rows = [
        (f"p{i}", t, rng.normal() + i % 2, ("up", "down")[i % 2], i / 2, "xy"[t % 2])
        for i in range(24)
        for t in range(3 + i % 3)
    ]
    columns = ["id", "t", "a", "kind", "size", "tag"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "rows.csv", index=False)
    pd.DataFrame(rows, columns=columns).drop(columns="a").to_csv(folder / "less.csv", index=False)
    months = pd.date_range("2020-01-01", periods=30, freq="MS")
    parts = [
        pd.DataFrame({"shop": shop, "month": months, "sales": 5 + rng.random(30)}) for shop in "ab"
    ]
    pd.concat(parts).to_parquet(folder / "sales.parquet")
    (folder / "text.txt").write_text("the cat sat on the mat. " * 30)
    np.savez(folder / "x.npz", x=rng.normal(size=(20, 4, 2)), y=np.arange(20) % 2)


@pytest.fixture(autouse=True)
def started(monkeypatch):
    """The tests' own jax has started, with two devices."""
    monkeypatch.setattr(runner, "start", lambda platform: None)


def run(*arguments: object) -> int:
    return train.main(["train", *map(str, arguments)])


def whole_run(folder: Path, out: Path, *more: str) -> int:
    return run(f"--data={folder / 'rows.csv'}", *KIND, *TINY, "--epochs=2", f"--out={out}", *more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files, and in `whole` the directory of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("own")
    write_files(folder)
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setattr(runner, "start", lambda platform: None)
        assert whole_run(folder, folder / "whole", "--ensemble") == 0
    return folder


def outcome(path: Path) -> dict[str, bytes]:
    kept = ["records.jsonl", "params/main.npz", "summary.csv", "model/task.json"]
    return {name: (path / name).read_bytes() for name in kept}


def test_a_run_leaves_a_model_and_a_report_with_a_verdict(folder):
    model = lj.load(folder / "whole" / "model")
    assert len(model) == 2 and model.task.classes == ("down", "up")
    records = [
        json.loads(line) for line in (folder / "whole/records.jsonl").read_text().splitlines()
    ]
    results = [r for r in records if r["kind"] == "result"]
    assert [r["seed"] for r in results] == [0, 1] and all("test_correct" in r for r in results)
    page = (folder / "whole" / "report.html").read_text()
    for words in ("baseline", "most common class", "Confusion matrix", "Calibration"):
        assert words in page, words


@pytest.mark.parametrize(
    ("owner", "name"),
    [(GroupLog, "progress"), (own_data, "save"), slow((RunDirectory, "finish"))],
)
def test_a_killed_run_ends_as_if_it_was_not(owner, name, folder, tmp_path, monkeypatch):
    original, calls = getattr(owner, name), []

    def mortal(*arguments, **keywords):
        original(*arguments, **keywords) if name != "finish" else None
        calls.append(1)
        if len(calls) == (2 if name == "progress" else 1):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, mortal)
        with pytest.raises(Killed):
            whole_run(folder, tmp_path / "run", "--ensemble")
    assert run(f"--resume={tmp_path / 'run'}") == 0
    assert outcome(tmp_path / "run") == outcome(folder / "whole")


def test_a_resume_with_other_data_is_refused(folder, tmp_path, capsys):
    other = tmp_path / "other.csv"
    frame = pd.read_csv(folder / "rows.csv")
    frame.assign(a=frame["a"] + 1e-3).to_csv(other, index=False)
    before = outcome(folder / "whole")
    assert run(f"--resume={folder / 'whole'}", f"--data={other}") == 2
    assert f"--data={other}" in (err := capsys.readouterr().err) and "other data" in err
    assert run(f"--resume={folder / 'whole'}", "--hidden=3") == 2
    assert outcome(folder / "whole") == before


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--data=sales.parquet --task=forecast --target=sales --id=shop --time=month --horizon=3",
         ("MASE", "seasonal naive", "quantiles 0.1 to 0.9")),
        pytest.param("--data=rows.csv --task=regression --target=size --id=id --features=a",
                     ("RMSE", "mean of the targets", "equality"), marks=pytest.mark.slow),
        pytest.param("--data=sales.parquet --task=forecast --target=sales --id=shop "
                     "--head=absolute", ("MASE", "by the seeds together."), marks=pytest.mark.slow),
        pytest.param("--data=rows.csv --task=labelling --target=tag --id=id --features=a "
                     "--balanced",
                     ("accuracy", "most common class"), marks=pytest.mark.slow),
        pytest.param("--data=text.txt --task=text --steps=4",
                     ("bits per character", "frequencies"), marks=pytest.mark.slow),
        pytest.param("--data=x.npz --test=0 --patience=2 --dropout=0,0.5",
                     ("no test split", "dropout"), marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_every_kind_of_task_is_trained_reported_and_predicted(
    line, words, folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(folder)
    epochs = [] if "text" in line else ["--epochs=1"]
    assert run(*line.split(), *TINY, *epochs, f"--out={tmp_path / 'run'}") == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert all(word in page for word in words)
    data = line.split()[0]
    model, out = f"--model={tmp_path / 'run' / 'model'}", tmp_path / "out.csv"
    assert predict.main(["predict", model, data, f"--out={out}"]) == 0
    found = pd.read_csv(out)
    assert len(found) > 1
    if "month" in line:
        assert list(found)[:3] == ["shop", "month", "ahead"]
        assert list(found["month"][:3]) == ["2022-07-01", "2022-08-01", "2022-09-01"]


def test_another_file_tests_whatever_the_order_of_its_columns(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    frame: Any = pd.read_csv("rows.csv")[["id", "a", "t", "kind"]]
    frame.to_csv(tmp_path / "train.csv", index=False)
    some = frame[frame["id"].isin(["p0", "p1", "p2"])]
    some[["t", "kind", "a", "id"]].assign(more=0).to_csv(tmp_path / "test.csv", index=False)
    monkeypatch.chdir(tmp_path)
    config = train.Train(data="train.csv", test="test.csv", target="kind", id="id")
    split, _ = own_data.load(config)
    assert isinstance(split, Split)
    rows = {name: len(part) for name, part in split.rows.items()}
    assert rows == {"train": 22, "validation": 2, "test": 3}
    first = some[some["id"] == "p0"][["a", "t"]].to_numpy(np.float32)
    np.testing.assert_array_equal(split.data.x[24, : len(first)], first)


def test_another_text_tests(folder, tmp_path):
    (tmp_path / "other").write_text("the mat")
    config = train.Train(data=f"{folder}/text.txt", task="text", test=f"{tmp_path}/other")
    text, _ = own_data.load(config)
    assert isinstance(text, Text) and text.bounds["test"] == (720, 727)


ROWS = "--data=rows.csv --target=kind --id=id --features=a"
SALES = "--data=sales.parquet --task=forecast --target=sales --id=shop"
BAD = [
    ("", "--data", "need a file"),
    ("--data=none.csv", "--data=none.csv", "must be a file"),
    ("--data=rows.txt", "--data=rows.txt", "must end in .npz or .csv or .parquet"),
    ("--data=empty.csv --target=k --id=i", "--data=empty.csv", "must be a csv file"),
    ("--data=header.csv --target=k --id=i", "--data=header.csv", "must have rows"),
    ("--data=stray.csv --target=kind --id=id", "--data=stray.csv", "line 2"),
    ("--data=torn.npz", "--data=torn.npz", "whole npz file"),
    ("--data=objects.npz", "--data=objects.npz", "array 'x' must hold numbers"),
    ("--data=letter.csv --target=kind --id=id", "--data=letter.csv", "column 'a' .* 'q' in line 3"),
    ("--data=unsorted.csv --target=kind --id=id --time=t", "--data=unsorted.csv", "line 3"),
    ("--data=one.csv --target=kind --id=id --features=a", "--target=kind", "at least 2 classes"),
    ("--data=two.csv --target=kind --id=id", "--data=two.csv", "number of rows must be"),
    ("--data=latin.txt --task=text", "--data=latin.txt", "0xe9 in line 2"),
    ("--data=rows.csv --id=id", "--target", "need a column of rows.csv"),
    ("--data=rows.csv --target=kind", "--id", "need a column of rows.csv, one of id, t"),
    ("--data=rows.csv --target=kind --id=id --features=a,b", "--features=b",
     "rows.csv has no such column, but id, t, a"),
    ("--data=rows.csv --target=age --id=id", "--target=age", "no such column"),
    (f"{ROWS} --horizon=3", "--horizon=3", "it is for --task=forecast"),
    (f"{ROWS} --steps=3", "--steps=3", "it is for --task=text"),
    (f"{ROWS} --task=regression --stratify", "--stratify=True", "it is for"),
    (f"{ROWS} --task=guessing", "--task=guessing", "need one of classification"),
    (f"{ROWS} --task=regression", "--target=kind", "must hold numbers.*; --task=classification"),
    ("--data=rows.csv --target=a --id=id --features=t", "--data=rows.csv",
     "; --task=labelling takes a target"),
    (f"{ROWS} --lr=0.1", "--lr=0.1", "no such flag, need --learning_rate"),
    (f"{ROWS} --validation=half", "--validation=half", "need a share of 0 to 0.9"),
    (f"{ROWS} --validation=0.5 --test=0.5", "--test=0.5", "nothing is left to train"),
    (f"{ROWS} --test=none.csv", "--test=none.csv", "must be a file"),
    (f"{ROWS} --test=less.csv", "--test=less.csv", "no column 'a', as the training had for feat"),
    (f"{SALES} --test=sales.parquet", "--test=sales.parquet", "a file is for --task=class"),
    (f"{ROWS} --validation=0 --patience=3", "--patience=3", "it needs --validation"),
    (f"{ROWS} --learning_rate=fast", "--learning_rate=fast", "need numbers"),
    (f"{ROWS} --hidden=1000000", "--hidden=1000000", "this machine has"),
    (f"{ROWS} --cell=tree", "--cell=tree", "need one of rnn"),
    (f"{ROWS} --out=rows.csv", "--out=rows.csv", "is a file"),
    (f"{ROWS} --out=whole", "--out=whole", "is not empty"),
    ("--resume=nowhere", "--resume=nowhere", "no run"),
    (f"{ROWS} --head=huber", "--head=huber", "it is for --task=regression or forecast"),
    (f"{SALES} --head=negative_binomial", "--head=negative_binomial", "must be counts 0, 1, 2"),
    (f"{SALES} --known=month,sales", "--known=month,sales", "which target names, too"),
    (f"{ROWS} --group=kind --stratify", "--stratify=True", "False where rows have a group"),
    (f"{SALES} --balanced", "--balanced=True", "it is for --task=classification or labelling"),
    (f"{SALES} --time=month --horizon=20", "--horizon=20", "time steps or more to train"),
    (f"{SALES} --validation=0.5", "--validation=0.5", "a whole number of windows"),
    ("--data=sales.parquet --task=forecast --target=shop", "--data=sales.parquet", "column 'shop'"),
    ("--data=text.txt --task=text --batch_size=100000", "--batch_size=100000", "need at most 647"),
    ("--data=text.txt --task=text --target=x", "--target=x", "it is for"),
    ("--data=x.npz --features=a", "--features=a", "has its own names"),
    ("--data=x.npz --target=z", "--target=z", "no such column, but x, y"),
    ("--data=rows.csv kind", "kind", "need flags only"),
    ("--dat=rows.csv", "Unknown command line flag 'dat'", "Did you mean: data"),
]  # fmt: skip


@pytest.fixture
def bad_files(folder, monkeypatch):
    monkeypatch.chdir(folder)
    text = (folder / "rows.csv").read_text().splitlines()
    broken = {
        "empty.csv": "", "header.csv": "i,k\n", "rows.txt": "", "torn.npz": "PK",
        "stray.csv": "\n".join([text[0], f"{text[1]},9", *text[2:]]),
        "letter.csv": "\n".join([*text[:2], "p0,1,q,up,0,x", *text[3:]]),
        "unsorted.csv": "\n".join([text[0], text[2], text[1], *text[3:]]),
        "one.csv": "\n".join(line for line in text if "down" not in line),
        "two.csv": "id,t,a,kind\np,1,1,up\nq,1,2,down\n",
    }  # fmt: skip
    for name, content in broken.items():
        (folder / name).write_text(content)
    (folder / "latin.txt").write_bytes("caf\nfé".encode("latin-1"))
    np.savez(folder / "objects.npz", x=np.array([[1, 2], [3]], object))


@pytest.mark.parametrize(("line", "named", "words"), BAD, ids=[line for line, *_ in BAD])
def test_bad_input_is_refused_in_one_sentence(line, named, words, bad_files, folder, capsys):
    before = set(folder.iterdir())
    out = [] if "--out" in line or "--resume" in line else ["--out=new"]
    assert run(*TINY[1:3], *line.split(), *out) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"train: {named}") and err.count("\n") == 1
    assert re.search(words, err), err
    assert set(folder.iterdir()) == before


@pytest.mark.slow
def test_a_real_process_refuses_without_a_traceback(tmp_path):
    command = [sys.executable, "-P", "-m", "experiments.train", "--data=none.csv"]
    environment: Any = os.environ | {"PYTHONPATH": str(ROOT)}
    ran = processes.run(command, env=environment, cwd=tmp_path)
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1
