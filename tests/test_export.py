"""Out to others: tables, trackers, the winner as ONNX and torch.export; init; hpo from Python."""

import copy
import dataclasses
import json
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Ended
from optuna.trial import TrialState
from scenes import fill

import hpo as api
from hpo import start
from hpo.cli import EXPORTS
from hpo.data import datasets as data
from hpo.errors import InputError
from hpo.export import trackers
from hpo.export.tables import to_parquet
from hpo.model import weights
from hpo.options import Options
from hpo.results.load import load_study
from hpo.results.study import StoredSearch
from hpo.storage.open import open_storage
from hpo.study import file as study_file
from hpo.study import finalists

NOTEBOOK = Path(__file__).parents[1] / "studies/examples/digits.ipynb"


@pytest.fixture
def ended(ended_search: Ended, tmp_path: Path) -> Path:
    """A copy of the folder of a whole run of the tiny search."""
    shutil.copytree(ended_search.folder, tmp_path, dirs_exist_ok=True)
    return tmp_path


def export(hpo: Callable, *options: str) -> str:
    answer = hpo("export", "tiny", *options, timeout=120)
    assert (answer.code, answer.err) == (0, ""), answer.err
    return answer.out


# --- trials ------------------------------------------------------------------------------------


def test_tables_are_those_of_the_report(hpo: Callable, ended: Path):
    export(hpo, "--to", "parquet", "--out", "out")
    for name in ("trials", "curves", "finalists"):
        ours = pd.read_parquet(ended / f"out/tiny/{name}.parquet")
        theirs = pd.read_csv(ended / f"reports/tiny/{name}.csv")
        assert list(ours) == list(theirs)
        for column in ours.select_dtypes("number"):
            np.testing.assert_array_equal(ours[column], theirs[column].astype(float))


def test_a_column_of_mixed_values_is_text_in_a_parquet_file(tmp_path: Path):
    table = pd.DataFrame({"kind": ["a", 3, None, True], "units": [1, 2, 3, 4]})
    study = SimpleNamespace(trials=table, curves=table)
    path, _ = to_parquet(study, tmp_path)  # type: ignore[arg-type]
    read = pd.read_parquet(path)
    assert read["kind"].fillna("").tolist() == ["a", "3", "", "True"]
    assert read["units"].tolist() == [1, 2, 3, 4]


def test_tensorboard_gets_every_trials_curve_once(hpo: Callable, ended: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    export(hpo, "--to", "tensorboard")
    folder = ended / "exports/tiny/tensorboard"
    trials = pd.read_csv(ended / "reports/tiny/trials.csv")
    curves = pd.read_csv(ended / "reports/tiny/curves.csv")
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        f"trial-{n}" for n in trials["number"]
    )
    [file] = [p for p in (folder / "trial-0").iterdir() if p.name.startswith("events")][:1]
    events = EventAccumulator(str(file.parent)).Reload()
    found = [event.value for event in events.Scalars("valid/accuracy")]
    expected = curves[curves["number"] == 0]["valid_accuracy"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    before = sorted(p.stat().st_mtime_ns for p in folder.rglob("events*"))
    shutil.rmtree(folder / "trial-1")
    export(hpo, "--to", "tensorboard")
    assert (folder / "trial-1").is_dir()
    after = sorted(p.stat().st_mtime_ns for p in folder.rglob("events*") if "trial-1" not in str(p))
    assert set(after) <= set(before)


@pytest.mark.slow
def test_mlflow_gets_every_trial_once(hpo: Callable, ended: Path):
    for _ in range(2):
        export(hpo, "--to", "mlflow")
    database = ended / "exports/tiny/mlflow/mlflow.db"
    with sqlite3.connect(database) as connection:
        runs = connection.execute("select run_uuid, status from runs").fetchall()
        last = "select value from latest_metrics where key = 'valid_accuracy'"
        accuracies = [row[0] for row in connection.execute(last)]
        names = {row[0] for row in connection.execute("select distinct key from params")}
    trials = pd.read_csv(ended / "reports/tiny/trials.csv")
    assert len(runs) == len(trials)
    assert {status for _, status in runs} == {"FINISHED"}
    assert sorted(accuracies) == pytest.approx(sorted(trials["valid_accuracy"]))
    assert {"depth", "width", "lr", "optimizer"} <= names


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of MLflow's own models
def test_mlflow_gets_a_run_per_cell_with_its_mean_above_those_of_its_seeds(
    hpo: Callable, ended: Path
):
    from mlflow import MlflowClient

    name = finalists.name_of("tiny")
    for _ in range(2):
        answer = hpo("export", name, "--to", "mlflow", timeout=120)
        assert (answer.code, answer.err) == (0, "")
    client = MlflowClient(f"sqlite:///{ended}/exports/{name}/mlflow/mlflow.db")
    [experiment] = [e for e in client.search_experiments() if e.name == name]
    runs = client.search_runs([experiment.experiment_id])
    cells = {run.info.run_id: run for run in runs if "hpo.seed" not in run.data.tags}
    below = [run for run in runs if run.info.run_id not in cells]
    frame = pd.read_csv(ended / "reports/tiny/finalists.csv")
    reference = pd.read_csv(ended / "reports/tiny/reference.csv")
    assert len(below) == len(frame) + len(reference)
    for number, rows in frame.groupby("number"):
        [cell] = [key for key, run in cells.items() if run.info.run_name == f"trial-{number}"]
        metrics = cells[cell].data.metrics
        assert metrics["test_accuracy"] == pytest.approx(rows["test_accuracy"].mean())
        assert metrics["seeds"] == len(rows)
        assert metrics["test_accuracy_low"] <= metrics["test_accuracy"]
        children = [run for run in below if run.data.tags["mlflow.parentRunId"] == cell]
        found = sorted(run.data.metrics["test_accuracy"] for run in children)
        assert found == pytest.approx(sorted(rows["test_accuracy"]))


def test_a_folder_for_the_hub_has_the_winner_and_its_figures(hpo: Callable, ended: Path):
    folder = ended / "exports/tiny/huggingface"
    (folder / ".git").mkdir(parents=True)
    (folder / "ensemble.safetensors").touch()  # of an earlier winner
    assert export(hpo, "--to", "huggingface").strip() == "exported: exports/tiny/huggingface"
    assert {path.name for path in folder.iterdir()} == {
        ".git", "README.md", "config.toml", "model.safetensors"
    }  # fmt: skip
    for name in ("config.toml", "model.safetensors"):
        assert (folder / name).read_bytes() == (ended / "reports/tiny/best" / name).read_bytes()
    _, head, body = (folder / "README.md").read_text().split("---\n", 2)
    about = json.loads(head)
    [result] = about["model-index"][0]["results"]
    rows = pd.read_csv(ended / "reports/tiny/finalists.csv").query("rank == 1")
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values["accuracy"] == pytest.approx(rows["test_accuracy"].mean(), rel=1e-5)
    assert about["pipeline_tag"] == result["task"]["type"]
    code = re.search(r"```python\n(.*?)```", body, re.DOTALL)
    assert code
    ran = subprocess.run([sys.executable, "-c", code[1]], cwd=folder, capture_output=True)
    assert ran.returncode == 0, ran.stderr


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, ended: Path):
    stored = load_study(open_storage(f"sqlite:///{ended}/hpo.db", create=False), "tiny")
    for module, write in (("mlflow", trackers.to_mlflow), ("torch.utils.tensorboard", None)):
        monkeypatch.setitem(__import__("sys").modules, module, None)
        with pytest.raises(InputError, match=r"pip install 'hpo-studies\["):
            (write or trackers.to_tensorboard)(stored, ended / "x")


@pytest.fixture
def stored(ended_search: Ended) -> StoredSearch:
    url = f"sqlite:///{ended_search.folder}/hpo.db"
    found = load_study(open_storage(url, create=False), "tiny")
    assert isinstance(found, StoredSearch)
    return found


@pytest.fixture
def fresh(stored: StoredSearch) -> StoredSearch:
    """Another study of the same name, as after --fresh: fewer trials, one pruned, one failed."""
    trials = copy.deepcopy(list(stored.frozen[:3]))
    trials[1].state, trials[2].state = TrialState.PRUNED, TrialState.FAIL
    del trials[2].user_attrs["curve"]
    return dataclasses.replace(stored, token="another", frozen=trials)


def test_tensorboard_does_not_keep_the_runs_of_a_deleted_study(
    stored: StoredSearch, fresh: StoredSearch, tmp_path: Path
):
    trackers.to_tensorboard(stored, tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").touch()
    before = {path.name for path in tmp_path.rglob("events*")}
    trackers.to_tensorboard(fresh, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"trial-0", "trial-1", "mine"}
    assert not before & {path.name for path in tmp_path.rglob("events*")}


def test_tensorboard_leaves_folders_alone_that_are_no_exported_runs(hpo: Callable, ended: Path):
    folder = ended / "exports/tiny/tensorboard"
    (folder / "empty").mkdir(parents=True)
    (folder / "mine").mkdir()
    (folder / "mine/events.out.tfevents.1").write_text("mine")
    (folder / "trial-900").mkdir()
    (folder / "trial-900/events.out.tfevents.1").write_text("of an older hpo")
    export(hpo, "--to", "tensorboard")
    assert (folder / "empty").is_dir()
    assert (folder / "mine/events.out.tfevents.1").read_text() == "mine"
    assert not (folder / "trial-900").exists()


@pytest.mark.filterwarnings("ignore")  # MLflow's own
@pytest.mark.parametrize("server", [False, True])
def test_mlflow_does_not_keep_the_runs_of_a_deleted_study(
    stored: StoredSearch,
    fresh: StoredSearch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    server: bool,
):
    import mlflow

    trackers.to_mlflow(stored, tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri)
    key = client.get_experiment_by_name("tiny").experiment_id
    theirs = client.create_run(key, run_name="somebody's").info.run_id
    if server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(InputError, match="has runs of another study of this name"):
            trackers.to_mlflow(fresh, tmp_path)
        assert len(client.search_runs([key])) == len(stored.frozen) + 1
        return
    for _ in range(2):
        trackers.to_mlflow(fresh, tmp_path)
    runs = {run.info.run_name: run for run in client.search_runs([key])}
    assert runs.pop("somebody's").info.run_id == theirs
    states = {name: run.info.status for name, run in runs.items()}
    assert states == {"trial-0": "FINISHED", "trial-1": "KILLED", "trial-2": "FAILED"}
    for trial in fresh.frozen:
        run = runs[f"trial-{trial.number}"]
        assert run.info.start_time == int(1000 * trial.datetime_start.timestamp())
        assert run.info.end_time == int(1000 * trial.datetime_complete.timestamp())
        assert run.data.tags["hpo.token"] == "another"
        assert (run.data.params["batch_size"], run.data.params["momentum"]) == ("64", "0.0")


def test_a_damaged_mlflow_file_is_a_line(stored: StoredSearch, tmp_path: Path):
    """As a killed export of an earlier version left it: some tables, and no version."""
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        connection.execute("CREATE TABLE experiments (name TEXT)")
    with pytest.raises(InputError, match=r"mlflow\.db: cannot be used: no such table"):
        trackers.to_mlflow(stored, tmp_path)


@pytest.mark.parametrize("answers", [False, True])
def test_a_dead_tracking_server_is_a_line_within_ten_seconds(
    stored: StoredSearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: bool
):
    """Nobody listens, or nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if not answers:
            server.close()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
        started = time.monotonic()
        with pytest.raises(
            InputError, match=rf"http://me:\*\*\*@127.0.0.1:{port}: cannot"
        ) as caught:
            trackers.to_mlflow(stored, tmp_path)
        assert time.monotonic() - started < 10
        assert "secret" not in str(caught.value)


# --- where it goes -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["parquet", "tensorboard", "mlflow", "torch-export"])
def test_a_full_disk_is_a_line_and_leaves_what_was_there(
    forked_hpo: Callable, ended: Path, small_disk: Callable, kind: str
):
    disk = small_disk("64k")
    (disk / "tiny").mkdir()
    names = [f"tiny/{name}.{kind}" for name in ("trials", "curves", "finalists")]
    for name in [*names, "tiny/winner.pt2"]:
        (disk / name).write_text("good")
    fill(disk)
    answer = forked_hpo("export", "tiny", "--to", kind, "--out", "disk")
    assert answer.code == 2, answer.err
    assert len(answer.err.splitlines()) == 1, answer.err
    assert "disk/tiny" in answer.err
    assert {(disk / name).read_text() for name in [*names, "tiny/winner.pt2"]} == {"good"}
    left = {path.name for path in (disk / "tiny").iterdir() if path.is_file()}
    assert left == {Path(name).name for name in [*names, "winner.pt2"]}


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("parquet", "trials.parquet"),
        ("mlflow", "mlflow/mlflow.db"),
        ("torch-export", "winner.pt2"),
    ],
)
def test_a_folder_in_the_place_of_a_file_is_a_line(
    forked_hpo: Callable, ended: Path, kind: str, place: str
):
    (ended / "exports/tiny" / place).mkdir(parents=True)
    answer = forked_hpo("export", "tiny", "--to", kind)
    assert (answer.code, len(answer.err.splitlines())) == (2, 1), answer.err
    assert f"exports/tiny/{place}: cannot be written (Is a directory)" in answer.err
    assert not [path for path in (ended / "exports").rglob("*") if path.is_file()]


# --- the winner --------------------------------------------------------------------------------


@pytest.mark.slow
def test_onnx_and_torch_export_give_the_winners_probabilities(hpo: Callable, ended: Path):
    import onnxruntime

    for kind, name in (("onnx", "winner.onnx"), ("torch-export", "winner.pt2")):
        out = export(hpo, "--to", kind)
        assert out.strip() == f"exported: exports/tiny/{name}"
    saved = weights.load(ended / "reports/tiny/best")
    loaded = data.load("mnist-5k", ended)
    rows, schema = loaded.train_images[:50], loaded.schema
    pixels = rows * np.float32(schema.std) + np.float32(schema.mean)
    expected = saved.answers(rows)
    session = onnxruntime.InferenceSession(str(ended / "exports/tiny/winner.onnx"))
    logits = torch.from_numpy(session.run(None, {"features": pixels})[0])
    np.testing.assert_allclose(logits.softmax(1).numpy(), expected, atol=1e-5)
    program = torch.export.load(ended / "exports/tiny/winner.pt2").module()
    with torch.inference_mode():
        answer = program(torch.from_numpy(pixels)).softmax(1)
    np.testing.assert_allclose(answer.numpy(), expected, atol=1e-5)


def test_what_cannot_be_exported_is_a_line(forked_hpo: Callable, ended: Path):
    shutil.rmtree(ended / "reports/tiny/best")
    for options, said in (
        (("tiny", "--to", "onnx"), "the winner is not saved there"),
        (("tiny", "--to", "excel"), f"--to: must be one of {', '.join(EXPORTS)}"),
        (("tiny.finalists", "--to", "onnx"), "is a grid, which has no winner"),
        (("nobody", "--to", "parquet"), "study 'nobody': is not in the storage"),
    ):
        answer = forked_hpo("export", *options)
        assert (answer.code, len(answer.err.splitlines())) == (2, 1), answer.err
        assert said in answer.err


# --- hpo init ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["search", "grid"])
def test_init_writes_a_commented_file_that_loads(forked_hpo: Callable, tmp_path: Path, kind: str):
    answer = forked_hpo("init", "mine", "--kind", kind, "--dataset", "mnist-5k")
    assert (answer.code, answer.err) == (0, "")
    study = study_file.load(str(tmp_path / "mine.toml"))
    assert (study.title, study.dataset.name) == ("mine", "mnist-5k")
    text = (tmp_path / "mine.toml").read_text("utf-8")
    assert Path(text.splitlines()[0].removeprefix("#:schema ")).is_file()
    again = forked_hpo("init", "mine")
    assert (again.code, "is there already" in again.err) == (2, True)


def test_what_a_template_has_commented_out_is_sound(tmp_path: Path):
    """With every commented key taken in but those that exclude each other."""
    text = (study_file.studies_dir() / "templates/search.toml").read_text("utf-8")
    lines = [line.removeprefix("# ") for line in text.splitlines() if line != "#:schema SCHEMA"]
    kept = [line for line in lines if "=" in line or line.startswith("[")]
    kept = [line for line in kept if "objectives" not in line and not line.startswith(("{", "A "))]
    raw = "\n".join(kept).replace("DATASET", "mnist")
    raw = raw.replace("pyramid = [0.5, 1.0]", "pyramid = 1.0").replace('"one_cycle"', "")
    assert study_file.parse(tomllib.loads(raw), "mine", "mine.toml")


def test_the_template_for_tables_is_a_search():
    text = (study_file.studies_dir() / "templates/table.toml").read_text("utf-8")
    raw = tomllib.loads(text.replace("DATASET", "wine"))
    assert isinstance(study_file.parse(raw, "mine", "mine.toml"), study_file.SearchStudy)


# --- from Python -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_from_python_gives_tables_figures_and_the_winner(
    ended: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(ended)
    for name in ("HPO_STORAGE", "HPO_DATA_DIR", "HPO_ARTIFACTS"):
        monkeypatch.delenv(name, raising=False)
    result = api.run("tiny.toml", trials=8)  # it is complete: nothing is trained
    assert len(result.trials) == 8
    assert set(result.curves["number"]) <= set(result.trials["number"])
    assert len(result.finalists) == 4
    assert {"progress", "slices", "confusion"} <= set(result.figures)
    winner = result.stored.winner.number
    assert repr(result) == f"Result('tiny': 8 trials, winner trial {winner})"
    assert repr(api.load("tiny.finalists")) == "Result('tiny.finalists': 6 trials)"
    shown = [repr(figure) for figure in result.figures.values()]
    assert all(text.startswith("Figure(") and len(text) < 200 for text in shown)
    result.figures["progress"].save("progress.svg")
    assert Path("progress.svg").read_text().startswith("<svg")
    assert "<table>" in result._repr_html_()
    assert result.config.width == 16
    network = result.winner
    assert network(torch.zeros(3, 784)).shape == (3, 10)
    assert not network.training
    with pytest.raises(InputError, match="is a search, which has no conclusions"):
        _ = result.verdicts
    sessions = json.loads(Path("reports/tiny/provenance.json").read_text())["sessions"]
    assert sessions, "of the command that trained it"
    tested = api.load("tiny.finalists")
    assert tested.verdicts.empty
    with pytest.raises(InputError, match="is a grid, which has no winner"):
        _ = tested.winner


def test_a_slip_from_python_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for options, said in (
        ({"trails": 3}, "options: unknown trails; known: "),
        ({"trials": 0}, "--trials: must be a whole number from 1 to 1000000, got 0"),
        ({"dataset": "imagenet"}, "--dataset: must be one of mnist"),
        ({"sampler": "best"}, "--sampler: must be one of tpe"),
        ({"pool": "lokal"}, "--pool: must be one of local, ray, got 'lokal'"),
        (
            {"device": "tpu"},
            "--device: must be one of auto, cpu, cuda, mps, or cuda:0,1 for some GPUs, got 'tpu'",
        ),
        ({"sampler_seed": -1}, "--sampler-seed: must be a whole number from 0 to 1000000, got -1"),
        ({"timeout": float("nan")}, "--timeout: must be a number of at least 0, got nan"),
        ({"epoch_limit": 0}, "--epoch-limit: must be a number of at least 1, got 0"),
        ({"trials": 2.5}, "--trials: must be a whole number from 1 to 1000000, got 2.5"),
        ({"trials": True}, "--trials: must be a whole number from 1 to 1000000, got True"),
        ({"trials": "3"}, "--trials: must be a whole number from 1 to 1000000, got '3'"),
        ({"timeout": "3"}, "--timeout: must be a number of at least 0, got '3'"),
        ({"trials": 10**400}, "--trials: must be"),
        ({"fresh": "no"}, "--fresh: must be true or false, got 'no'"),
        ({"out": 3}, "--out: must be text, got 3"),
        ({"seeds": 0, "lang": "xx"}, "--seeds: .*\n--lang: must be one of"),
    ):
        with pytest.raises(InputError, match=said):
            api.run("search", **options)
    with pytest.raises(InputError, match="there is no such file"):
        api.load("search", storage="sqlite:///nothing.db")


def test_a_study_runs_in_a_thread_that_is_not_the_main_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    text = """
title = "A thread"
dataset = "wine"
seeds = 1
[base]
depth = 1
width = 8
activation = "relu"
optimizer = "sgd"
lr = 0.1
epochs = 1
[[cells]]
name = "one"
"""
    (tmp_path / "tiny.toml").write_text(text, encoding="utf-8")
    with ThreadPoolExecutor(1) as executor:
        result = executor.submit(api.run, "tiny.toml", workers=1).result()
    assert list(result.trials["state"]) == ["COMPLETE"]


def test_numbers_of_numpy_and_paths_are_options_from_python():
    given = {"trials": np.int64(3), "timeout": np.float32(2), "dataset": Path("my/data.csv")}
    options = Options.of({"study": Path("x.toml"), "out": "there", **given})
    assert (options.trials, options.timeout, options.dataset) == (3, 2.0, "my/data.csv")
    assert (options.study, options.out) == ("x.toml", Path("there"))


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import nbformat
    from nbclient import NotebookClient

    for name in ("HPO_STORAGE", "HPO_DATA_DIR", "HPO_ARTIFACTS"):
        monkeypatch.delenv(name, raising=False)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/svg+xml" in output.get("data", {}) for output in shown) >= 2
    assert not re.search("/(home|root|usr|tmp|work)/", json.dumps(shown)), "paths of a machine"
    assert max(len(output.get("data", {}).get("text/plain", "")) for output in shown) < 500
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    run = [output.get("data", {}).get("text/plain", "") for output in notebook.cells[2]["outputs"]]
    lines = [re.sub(r"\x1b\[\d*m", "", line) for text in run for line in text.splitlines()]
    assert max(map(len, lines)) <= 115, "wider than a notebook's page"


def test_run_names_its_command_as_it_is_typed_and_hears_the_environment(
    monkeypatch: pytest.MonkeyPatch,
):
    asked: list[tuple[Options, str | None]] = []

    def refuse(options: Options, command: str | None) -> tuple[str, bool]:
        asked.append((options, command))
        raise InputError("enough")

    monkeypatch.setattr(start, "run", refuse)
    monkeypatch.setenv("HPO_LANG", "ko")
    with pytest.raises(InputError, match="enough"):
        api.run(
            "my study.toml", sampler_seed=0, timeout=None, fresh=False, dashboard=True,
            storage="postgresql://me:secret@host/db",
        )  # fmt: skip
    [(options, command)] = asked
    assert options.lang == "ko"
    assert (options.sampler_seed, options.dashboard) == (0, True)
    assert command == (
        "hpo run 'my study.toml' --sampler-seed 0 --dashboard --storage 'postgresql://me:***@host/db'"
    )
