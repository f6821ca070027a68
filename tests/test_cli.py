"""The hpo command: exit codes, errors of one line, and nothing half-written."""

import contextlib
import io
import json
import os
import pty
import resource
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import optuna
import pandas as pd
import pytest
from conftest import Answer

from hpo import cli, output, process, session
from hpo.data.catalog import NAMES
from hpo.data.download import Unavailable
from hpo.passwords import without_password
from hpo.results.load import load_study
from hpo.storage.open import open_storage
from hpo.study import file as study_file
from hpo.watch import listing

Run = Callable[..., Answer]


def assert_refused(answer: Answer, *said: str, lines: int = 1) -> None:
    """Exit code 2, one line a fault on standard error, and no traceback."""
    assert answer.code == 2, answer
    assert answer.out == ""
    assert len(answer.err.splitlines()) == lines, answer.err
    assert all(line.startswith("hpo: ") for line in answer.err.splitlines())
    for text in said:
        assert text in answer.err


def written(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_on_windows_a_line_says_where_it_runs():
    code = "import os, hpo.cli; os.name = 'nt'; hpo.cli.main()"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ran.returncode, len(ran.stderr.splitlines())) == (1, 1), ran.stderr
    assert "install WSL" in ran.stderr


# --- what is loaded ----------------------------------------------------------------------------


def test_help_is_there_at_once(hpo: Run):
    def cpu_seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    taken = []
    for _ in range(3):
        before = cpu_seconds()
        answer = hpo("--help")
        taken.append(cpu_seconds() - before)
        assert answer.code == 0
        assert "run" in answer.out
    assert min(taken) < 1.0


def modules_after(*commands: list[str], cwd: Path) -> list[tuple[int, set[str]]]:
    """The exit code of each command, one after the other in a new process, and the modules that are
    imported after it."""
    program = (
        "import json, sys\n"
        "from hpo.cli import main\n"
        "ended = []\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    sys.argv[1:] = command\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as end:\n"
        "        ended.append((end.code or 0, list(sys.modules)))\n"
        "print('\\n' + json.dumps(ended))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, json.dumps(commands)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return [(code, set(modules)) for code, modules in json.loads(ended.stdout.splitlines()[-1])]


def test_help_imports_neither_torch_nor_optuna(tmp_path: Path):
    commands = ([], ["run"], ["data", "get"])
    for code, modules in modules_after(*([*c, "--help"] for c in commands), cwd=tmp_path):
        assert code == 0
        assert "hpo.cli" in modules
        assert not modules & {"torch", "optuna", "numpy", "pandas", "scipy", "matplotlib"}
        assert not {module for module in modules if module.startswith("hpo.study.file")}


def test_the_command_runs_its_exit_handlers_and_gives_its_code(tmp_path: Path):
    program = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('handled', end=''))\n"
        "from hpo.cli import script\n"
        "script()"
    )
    command = [sys.executable, "-c", program, "show", "nothing"]
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (2, "handled")
    assert ended.stderr.startswith("hpo: ")


def test_list_show_and_report_import_no_torch(tmp_path: Path):
    from test_report import store

    (tmp_path / "mine.toml").write_text(f"[base]\n{BASE}\n[[cells]]\nname = 'only'\n")
    store(tmp_path, seeds=2, file=str(tmp_path / "mine.toml"), name="mine")
    commands = (["list"], ["show", "mine"], ["report", "mine"])
    for command, (code, modules) in zip(
        commands, modules_after(*commands, cwd=tmp_path), strict=True
    ):
        assert "optuna" in modules
        assert ("hpo.report.write" in modules) == (command[0] == "report")
        assert ("matplotlib" in modules) == (command[0] == "report")
        assert "torch" not in modules
        assert code == 0
    assert (tmp_path / "reports/mine/index.html").is_file()


BASE = "depth = 1\nwidth = 8\nactivation = 'relu'\noptimizer = 'sgd'\nlr = 0.1"

# --- what is refused ---------------------------------------------------------------------------

OPTIONS = [
    (["run", "nonsense"], ["'nonsense'", "grid-report, interactions, noise, precision, search"]),
    (["run", "serch"], ["'serch'", "or a path; did you mean 'search'?"]),
    (["init", "x", "--kind", "gird"], ["grid, got 'gird'; did you mean 'grid'?"]),
    (["run", "grid-report", "--more", "2"], ["--more: study 'grid-report' is a grid"]),
    (["run", "."], ["cannot be read"]),
    (["run", "grid-report", "--seeds", "0"], ["--seeds: must be a whole number from 1", "got '0'"]),
    (["run", "grid-report", "--seeds", "x"], ["--seeds: must be a whole number from 1 to", "'x'"]),
    (["run", "grid-report", "--workers", "0"], ["--workers: must be a whole number from 1 to"]),
    (["run", "grid-report", "--timeout", "nan"], ["--timeout: must be a number of at least 0"]),
    (["run", "grid-report", "--dataset", "imagenet"], ["--dataset", "mnist-5k", "'imagenet'"]),
    (["run", "grid-report", "--dataset", ""], ["--dataset", "mnist-5k"]),
    (["run", "grid-report", "--device", "tpu"], ["--device", "cuda", "'tpu'"]),
    (["run", "grid-report", "--nonsense"], ["--nonsense"]),
    (["run"], ["STUDY"]),
    (["nonsense"], ["'nonsense'"]),
    (["run", "grid-report", "--name", "../x"], ["study name '../x'"]),
    (["run", "grid-report", "--name", "/abs"], ["study name '/abs'"]),
    (["run", "grid-report", "--name", ".."], ["study name '..'"]),
    (["run", "grid-report", "--name", ""], ["study name ''"]),
    (["report", "grid-report", "--name", ""], ["study name ''"]),
    (["report", "../x"], ["study name '../x'"]),
    (["show", "/abs"], ["study name '/abs'"]),
    (["data", "get", "imagenet"], ["mnist-5k", "'imagenet'"]),
    (["run", "grid-report", "--out", "/proc/x"], ["--out /proc/x", "give another"]),
    (["run", "grid-report", "--storage", "nonsense"], ["storage nonsense", "sqlite:///hpo.db"]),
    (["run", "grid-report", "--storage", ""], ["sqlite:///hpo.db"]),
    (["report", "grid-report", "--storage", "x://y"], ["storage x://y", "sqlite:///hpo.db"]),
    (["report", "grid-report"], ["sqlite:///hpo.db", "no such file", "`hpo run`"]),
    (["show", "grid-report"], ["sqlite:///hpo.db", "no such file", "`hpo run`"]),
    (["dashboard"], ["sqlite:///hpo.db", "no such file", "`hpo run`"]),
    (["run", "grid-report", "--storage", "sqlite:////no/such/x.db"], ["no folder /no/such"]),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "said"), OPTIONS, ids=[" ".join(o[0]) for o in OPTIONS])
def test_wrong_option_is_refused_in_a_line_and_leaves_nothing(
    forked_hpo: Run, tmp_path: Path, arguments: list[str], said: list[str]
):
    assert_refused(forked_hpo(*arguments), *said)
    assert written(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cells = [", "is not valid TOML"),
        ("titel = 1\n[[cells]]\nname = 'a'\n[base]\n" + BASE, "did you mean 'title'?"),
    ],
    ids=["malformed", "unknown key"],
)
def test_wrong_study_file_is_refused_and_leaves_nothing(
    forked_hpo: Run, tmp_path: Path, text: str, said: str
):
    (tmp_path / "mine.toml").write_text(text)
    answer = forked_hpo("run", "mine.toml")
    assert_refused(answer, "mine.toml: ", said)
    assert written(tmp_path) == ["mine.toml"]


def test_every_fault_of_a_study_file_has_a_line(forked_hpo: Run, tmp_path: Path):
    (tmp_path / "mine.toml").write_text("title = 3\nseeds = 0\ncells = []")
    assert_refused(forked_hpo("run", "mine.toml"), "title: ", "seeds: ", "cells: ", lines=3)


@pytest.mark.parametrize("in_the_way", ["out", "out/grid-report"])
@pytest.mark.parametrize("command", ["run", "report"])
def test_file_in_the_way_of_the_report_is_refused_before_the_run(
    forked_hpo: Run, tmp_path: Path, command: str, in_the_way: str
):
    path = tmp_path / in_the_way
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    before = written(tmp_path)
    assert_refused(forked_hpo(command, "grid-report", "--out", "out"), "--out out", "give another")
    assert written(tmp_path) == before


def test_link_to_nowhere_in_the_way_of_the_report_is_refused(forked_hpo: Run, tmp_path: Path):
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    assert_refused(forked_hpo("run", "grid-report", "--out", "out"), "--out out")


# --- storages ----------------------------------------------------------------------------------


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"not a database at all" * 100, "cannot be opened"), (None, "database of something else")],
    ids=["no database", "something else's"],
)
@pytest.mark.parametrize("command", ["run", "report", "list"])
def test_foreign_file_as_storage_is_refused_and_stays_as_it_was(
    forked_hpo: Run, tmp_path: Path, command: str, content: bytes | None, said: str
):
    path = tmp_path / "mine.db"
    if content is None:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            # One of the tables is named as one of Optuna's.
            connection.executescript("CREATE TABLE studies (a); CREATE TABLE mine (b);")
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    study = [] if command == "list" else ["grid-report"]
    answer = forked_hpo(command, *study, "--storage", "sqlite:///mine.db")
    assert answer.code == 2
    assert "storage sqlite:///mine.db" in answer.err
    assert said in answer.err
    assert len(answer.err.splitlines()) == 1
    assert path.read_bytes() == before
    assert written(tmp_path) == ["mine.db"]


def test_folder_as_storage_is_refused(forked_hpo: Run, tmp_path: Path):
    (tmp_path / "mine.db").mkdir()
    answer = forked_hpo("run", "grid-report", "--storage", "sqlite:///mine.db")
    assert_refused(answer, "storage sqlite:///mine.db: cannot be opened (unable to open")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@127.0.0.1:{port}/db",
        "mysql://me:s3cret@127.0.0.1:{port}/db",
        "postgresql://me:s3cret@127.0.0.1:port/db",
        "nonsense://me:s3cret@127.0.0.1/db",
        "redis://:s3cret@127.0.0.1/0",
        "postgresql://me:s3cret/s3cret@127.0.0.1:{port}/db",
        "postgresql://me:s3cret@s3cret@127.0.0.1:{port}/db",
        "postgresql://127.0.0.1:{port}/db?user=me&password=s3cret",
    ],
)
def test_storage_that_cannot_be_reached_is_refused_without_its_password(
    forked_hpo: Run, tmp_path: Path, url: str
):
    url = url.format(port=closed_port())
    answer = forked_hpo("run", "grid-report", env={"HPO_STORAGE": url})
    assert_refused(answer, "storage ", "127.0.0.1")
    assert "s3cret" not in answer.err
    assert written(tmp_path) == []


def test_url_without_password_is_shown_as_it_is():
    for url in ("sqlite:///hpo.db", "postgresql://me@host:5432/db", "nonsense"):
        assert without_password(url) == url


def test_in_memory_storage_works():
    storage = open_storage("sqlite://")
    assert optuna.create_study(storage=storage, study_name="a").study_name == "a"


def test_stored_database_is_one_that_can_be_read_while_it_is_written(tmp_path: Path):
    path = tmp_path / "hpo.db"
    open_storage(f"sqlite:///{path}").engine.dispose()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_command_line_in_the_provenance_shows_no_password():
    from hpo.workers.provenance import command_line

    line = command_line(["run", "x", "--storage=postgresql://me:s3cret@host/db", "--quiet"])
    assert line == "hpo run x '--storage=postgresql://me:***@host/db' --quiet"


# --- debugging ---------------------------------------------------------------------------------


def test_traceback_comes_where_it_is_asked_for(forked_hpo: Run):
    answer = forked_hpo("run", "nonsense", env={"HPO_DEBUG": "1"})
    assert answer.code == 2
    assert answer.err.startswith("Traceback")
    assert "\nhpo: study 'nonsense': " in answer.err


# --- list, data, fresh -------------------------------------------------------------------------


def test_a_run_that_finishes_no_trial_says_so_by_its_exit_code(forked_hpo: Run, tmp_path: Path):
    (tmp_path / "mine.toml").write_text(f"[base]\n{BASE}\n[[cells]]\nname = 'only'\n")
    answer = forked_hpo("run", "mine.toml", "--dataset", "mnist-5k", "--timeout", "0")
    assert (answer.code, answer.err) == (1, "hpo: study 'mine': no trial has finished\n")
    assert (tmp_path / "reports/mine/index.html").is_file()


def test_list_shows_study_files_before_there_is_a_storage(forked_hpo: Run, tmp_path: Path):
    answer = forked_hpo("list")
    assert (answer.code, answer.err) == (0, "")
    for name in study_file.shipped():
        assert f"\n{name} " in answer.out
    assert "No studies" in answer.out
    assert written(tmp_path) == []


def test_list_refuses_a_storage_that_is_none(forked_hpo: Run):
    answer = forked_hpo("list", "--storage", "nonsense")
    assert answer.code == 2
    assert answer.err.startswith("hpo: storage nonsense: is no storage URL; ")


def test_list_shows_the_studies_in_the_storage(forked_hpo: Run, tmp_path: Path):
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    study = optuna.create_study(storage=storage, study_name="mine")
    study.add_trial(optuna.trial.create_trial(value=0.5))
    answer = forked_hpo("list")
    assert (answer.code, answer.err) == (0, "")
    rows = [line.split() for line in answer.out.partition("Studies in")[2].splitlines()]
    assert rows[1:] == [
        ["name", "kind", "finished", "best", "dataset", "last", "run"],
        ["mine", "not", "of", "hpo", "1", "trial", "–", "–", "–"],
    ]


def test_list_names_kind_best_and_dataset_of_a_search_and_its_finalists(ended_search):
    url = f"sqlite:///{ended_search.folder / 'hpo.db'}"
    storage = open_storage(url, create=False)
    stored = load_study(storage, "tiny")
    rows = listing.stored_studies(storage, lambda _: True).table.rows
    said = (("search", "trials"), ("finalists", "trainings"))
    for row, part, (kind, noun) in zip(rows, stored.parts, said, strict=True):
        assert (row.name, row.kind, row.dataset) == (part.name, kind, part.data_name)
        finished = part.trials["state"].isin(["COMPLETE", "PRUNED"]).sum()
        assert row.finished == f"{finished} {noun}"
        assert row.best == part.metric.text(part.ranked.iloc[0][part.metric.name])
        day = datetime.fromtimestamp(part.sessions[-1]["started"])
        assert row.last_run == f"{day:%Y-%m-%d}"


def test_list_names_a_study_whose_attributes_are_damaged(tmp_path: Path):
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    study = optuna.create_study(storage=storage, study_name="mine")
    study.set_user_attr("study_file", {"space": 3})
    [row] = listing.stored_studies(storage, lambda _: False).table.rows
    assert (row.name, row.kind, row.finished) == ("mine", "damaged", "0 trials")
    journal = open_storage(f"journal:///{tmp_path / 'hpo.log'}")
    optuna.create_study(storage=journal, study_name="other").add_trial(
        optuna.trial.create_trial(value=0.5)
    )
    [row] = listing.stored_studies(journal, lambda _: False).table.rows
    assert (row.name, row.kind, row.finished) == ("other", "not of hpo", "1 trial")


def test_data_list_says_what_is_on_disk(forked_hpo: Run, tmp_path: Path):
    raw = tmp_path / "d" / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for name in NAMES:
        (raw / f"{name}.gz").touch()
    answer = forked_hpo("data", "list", env={"HPO_DATA_DIR": str(tmp_path / "d")})
    assert (answer.code, answer.err) == (0, "")
    assert [line.split(maxsplit=1) for line in answer.out.splitlines()[1:]] == [
        ["mnist", "not here"],
        ["fashion-mnist", "not here"],
        ["kmnist", "on disk"],
        ["qmnist", "not here"],
        ["emnist-digits", "not here"],
        ["emnist-letters", "not here"],
        ["mnist-5k", "embedded"],
        ["digits", "embedded"],
        ["breast-cancer", "embedded"],
        ["wine", "embedded"],
        [
            "Your",
            "own: the path of an .npz, .csv or .parquet file or of a folder of images (./folder)",
        ],
    ]


def test_data_get_says_what_it_got(forked_hpo: Run):
    answer = forked_hpo("data", "get", "mnist-5k")
    assert (answer.code, answer.err) == (0, "")
    first, *card = answer.out.splitlines()
    assert first.startswith("mnist-5k: 4000 training and 1000 test examples, SHA-256 ")
    assert "Features: pictures of 28 × 28, pixels of 0 … 1" in card
    assert "Classes: 10: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in card


def test_data_get_names_a_damaged_file(forked_hpo: Run, tmp_path: Path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in NAMES:
        (raw / f"{name}.gz").write_bytes(b"half")
    answer = forked_hpo("data", "get", "mnist", "--data-dir", ".")
    assert_refused(answer, "train-images-idx3-ubyte.gz: is damaged", "delete", lines=4)


def test_fresh_refuses_to_delete_where_nobody_can_be_asked(forked_hpo: Run, tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'hpo.db'}"
    optuna.create_study(storage=open_storage(url), study_name="grid-report")
    answer = forked_hpo("run", "grid-report", "--fresh", "--dataset", "mnist-5k")
    assert_refused(answer, "--fresh", "--yes")
    assert optuna.get_all_study_names(url) == ["grid-report"]


# --- no MNIST ----------------------------------------------------------------------------------


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's servers are a port of this machine that nothing listens on."""
    import torchvision

    url = f"http://127.0.0.1:{closed_port()}/"
    for name in ("MNIST", "FashionMNIST", "KMNIST"):
        monkeypatch.setattr(getattr(torchvision.datasets, name), "mirrors", [url])
    monkeypatch.setenv("no_proxy", "*")


@pytest.mark.usefixtures("offline")
def test_mnist_5k_stands_in_visibly_where_mnist_cannot_be_had(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    loaded = study_file.load("grid-report")
    dataset, name = session.load_data(loaded, None, tmp_path, "mine")
    assert (dataset.name, name) == ("mnist-5k", "mine.mnist-5k")
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    assert line.startswith("NOTE: mnist: train-images-idx3-ubyte, ")
    assert "mine.mnist-5k" in line
    assert written(tmp_path) == []


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("asked", ["mnist", "kmnist"])
def test_dataset_asked_for_is_never_replaced(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    asked: str,
):
    monkeypatch.chdir(tmp_path)
    for variable in ("HPO_DATA_DIR", "HPO_STORAGE", "HPO_DEBUG"):
        monkeypatch.delenv(variable, raising=False)
    arguments = ["hpo", "run", "grid-report", "--dataset", asked, "--data-dir", "empty"]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("hpo.workers.server.preload", lambda: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert_refused(Answer(int(str(ended.value.code)), out, err), asked, "--data-dir", "empty")
    assert written(tmp_path) == []


@pytest.mark.usefixtures("offline")
def test_study_file_on_another_dataset_gets_it_or_nothing(tmp_path: Path):
    raw = {**study_file.load("grid-report").raw, "dataset": "kmnist"}
    with pytest.raises(Unavailable, match="kmnist"):
        session.load_data(study_file.parse(raw, "mine", "mine.toml"), None, tmp_path, "mine")


@pytest.mark.usefixtures("offline")
def test_a_run_without_mnist_is_stored_and_reported_as_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "mine.toml").write_text(
        f"dataset = 'mnist'\n[base]\n{BASE}\nepochs = 1\n[[cells]]\nname = 'only'\n"
    )
    monkeypatch.chdir(tmp_path)
    options = ["--data-dir", "empty", "--storage", "sqlite:///hpo.db", "--workers", "1"]
    monkeypatch.setattr("sys.argv", ["hpo", "run", "mine.toml", *options])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert ended.value.code == 0, err
    assert "NOTE: mnist" in err
    assert "report: reports/mine.mnist-5k/index.html" in out
    text = (tmp_path / "reports/mine.mnist-5k/report.md").read_text()
    assert "Data: mnist-5k, not MNIST; accuracy and loss on its 1,000 test images" in text


def test_mnist_is_learnt_by_a_whole_run(hpo: Run, tmp_path: Path, mnist_dir: Path):
    (tmp_path / "quick.toml").write_text(
        "dataset = 'mnist'\nseeds = 1\n[base]\ndepth = 2\nwidth = 64\nactivation = 'relu'\n"
        "epochs = 2\n[[cells]]\nname = 'sgd'\noptimizer = 'sgd'\nlr = 0.1\n"
        "[[cells]]\nname = 'adam'\noptimizer = 'adam'\nlr = 1e-3\n"
    )
    answer = hpo("run", "quick.toml", "--data-dir", str(mnist_dir.absolute()))
    assert answer.code == 0, answer.err
    trials = pd.read_csv(tmp_path / "reports/quick/trials.csv")
    # Two epochs of such a network give 95.5 to 96.5%; a slip in data or gradient would show.
    assert trials["test_accuracy"].between(0.945, 0.975).all()
    assert list(trials["state"]) == ["COMPLETE"] * 2


def test_a_line_is_out_at_once_where_python_is_told_not_to_buffer(tmp_path: Path):
    """By PYTHONUNBUFFERED, as in most containers."""
    log = tmp_path / "log"
    given = io.TextIOWrapper(log.open("wb", buffering=0), write_through=True)
    with given, process._ignoring_errors(given) as out:
        print("1/8  trained", file=out)
        assert log.read_text() == "1/8  trained\n"


def test_an_error_breaks_between_words_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    ours, theirs = pty.openpty()
    monkeypatch.setenv("COLUMNS", "60")
    with open(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        output.complain(f"hpo: study 'serch': {'is not in the storage; ' * 3}{tmp_path}")
    lines = os.read(ours, 1000).decode().splitlines()
    os.close(ours)
    assert [line.split()[0] for line in lines] == ["hpo:", "storage;", str(tmp_path)]
    assert max(map(len, lines[:2])) <= 60
