"""`hpo run` of a search as a user gives it: ended, stopped, timed out, resumed, refused."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from tiny import SEARCH

FIGURES = {"progress", "slices", "curves", "confusion", "worst"}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(SEARCH)
    return tmp_path


def test_a_search_ends_in_a_report_a_csv_and_a_network(ended_search, forked_hpo):
    answer = ended_search.answer
    assert answer.code == 0, answer.err
    assert answer.err == ""
    assert "8/8" in answer.out
    folder = ended_search.folder / "reports/tiny"
    assert {p.stem for p in (folder / "figures").glob("*.svg")} == FIGURES
    assert {p.name for p in (folder / "best").iterdir()} == {"config.toml", "model.safetensors"}
    finalists = pd.read_csv(folder / "finalists.csv")
    names = ["rank", "number", "seed", "valid_accuracy", "test_loss", "test_accuracy"]
    assert list(finalists.columns) == names
    assert sorted(finalists["rank"]) == [1, 1, 2, 2]
    assert set(finalists["seed"]) == {1, 2}
    trials = pd.read_csv(folder / "trials.csv")
    assert trials["test_accuracy"].isna().all()
    assert trials["state"].isin(["COMPLETE", "PRUNED"]).all()
    page = (folder / "index.html").read_text()
    assert "This needs 15 finished trials; there are" in page
    assert "Tiny &lt;search&gt; &amp; more" in page
    for words in ("selection bias", "95% interval", "hpo run tiny.toml", "load_file"):
        assert words in page
    shown = forked_hpo("show", "tiny", "--storage", f"sqlite:///{ended_search.folder / 'hpo.db'}")
    assert shown.code == 0
    assert "the winner" in shown.out


@pytest.mark.slow
def test_a_repeated_search_reports_the_spread_of_its_winners(hpo, tiny):
    answer = hpo("run", "tiny.toml", "--repeats", "2", "--trials", "4", "--quiet", timeout=120)
    assert answer.code == 0, answer.err
    seeds = {}
    with closing(sqlite3.connect(tiny / "hpo.db")) as connection:
        query = "SELECT study_name, value_json FROM studies JOIN study_user_attributes USING "
        query += "(study_id) WHERE key = 'sampler_seed'"
        seeds = dict(connection.execute(query))
    assert seeds == {"tiny": "0", "tiny.repeat-2": "1"}
    text = (tiny / "reports/tiny/report.md").read_text()
    assert "2 searches, each by another sampler seed, ended at" in text
    table = text.split("## The same search again")[1].split("##")[0]
    assert [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| tiny")] == [
        "| tiny", "| tiny.repeat-2"
    ]  # fmt: skip


def ended_in(folder: Path) -> int:
    """How many trials of the search have ended, as another process sees it."""
    try:
        with closing(sqlite3.connect(f"file:{folder / 'hpo.db'}?mode=ro", uri=True)) as connection:
            query = "SELECT COUNT(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED')"
            return connection.execute(query).fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def await_trials(folder: Path, count: int = 1) -> None:
    """Until so many of the search's trials have ended; fails after a minute."""
    deadline = time.monotonic() + 60
    while ended_in(folder) < count:
        assert time.monotonic() < deadline, f"{ended_in(folder)} trials have ended"
        time.sleep(0.05)


def test_a_signal_ends_in_a_whole_report_and_the_same_command_goes_on(hpo, hpo_process, tiny):
    process = hpo_process("run", "tiny.toml", "--trials", "100000")
    await_trials(tiny, 4)
    process.terminate()  # Ctrl-C: tests/test_runner.py
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert err == "hpo: stopped; the same command goes on from here\n"
    folder = tiny / "reports/tiny"
    made = {p.stem for p in (folder / "figures").glob("*.svg")}
    assert made >= {"progress", "curves"}
    assert "The search is not finished" in (folder / "index.html").read_text()
    assert not (folder / "best").exists()
    before = ended_in(tiny)
    answer = hpo("run", "tiny.toml", "--trials", str(before + 1))
    assert answer.code == 0, answer.err
    trials = pd.read_csv(folder / "trials.csv")
    assert trials["state"].isin(["COMPLETE", "PRUNED"]).sum() == before + 1
    assert not trials["state"].isin(["RUNNING", "WAITING"]).any()
    assert (folder / "best/model.safetensors").is_file()


def winner_of(folder: Path) -> tuple[bytes, int]:
    """The saved network, and when it was written."""
    path = folder / "reports/tiny/best/model.safetensors"
    return path.read_bytes(), path.stat().st_mtime_ns


def test_more_trials_count_from_what_is_stored(hpo, hpo_process, tiny):
    said = "has finished 0 trials, so this run ends with 2; if it is stopped, --trials 2 goes on"
    assert said in hpo("run", "tiny.toml", "--more", "2", "--quiet").err
    winner = winner_of(tiny)
    again = hpo("run", "tiny.toml", "--trials", "2", "--quiet")
    assert again.err == "NOTE: nothing was left to do: study 'tiny' is complete\n"
    assert winner_of(tiny) == winner
    answer = hpo("run", "tiny.toml", "--more", "1", "--quiet")
    assert answer.code == 0, answer.err
    assert "has finished 2 trials, so this run ends with 3" in answer.err
    assert ended_in(tiny) >= 3
    trials = pd.read_csv(tiny / "reports/tiny/trials.csv")
    assert trials["state"].isin(["COMPLETE", "PRUNED"]).sum() == 3
    process = hpo_process("run", "tiny.toml", "--more", "100000")
    await_trials(tiny, ended_in(tiny) + 1)
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    same = "the same command with --trials 100003 in the place of --more"
    assert err.splitlines()[-1] == f"hpo: stopped; {same} goes on from here"


def test_a_deleted_study_is_gone_with_its_finalists_pictures_and_winner(hpo, forked_hpo, tiny):
    assert hpo("run", "tiny.toml", "--trials", "2", "--quiet").code == 0
    assert list((tiny / "hpo.artifacts").iterdir())
    kept = forked_hpo("delete", "tiny")
    assert (kept.code, kept.out) == (2, "")
    line = "hpo: delete: would delete study 'tiny'; add --yes where nobody can be asked\n"
    assert kept.err == line
    assert (tiny / "reports/tiny/best/model.safetensors").is_file()
    gone = forked_hpo("delete", "tiny.toml", "--yes")
    assert (gone.code, gone.err) == (0, "")
    lines = ["deleted: study 'tiny'", "its report stays: reports/tiny/index.html"]
    assert gone.out.splitlines() == lines
    assert "tiny" not in forked_hpo("list").out.partition("Studies in")[2]
    assert not (tiny / "hpo.artifacts").exists()
    assert not (tiny / "reports/tiny/best").exists()
    assert (tiny / "reports/tiny/index.html").is_file()
    missing = forked_hpo("delete", "tiny", "--yes")
    assert missing.code == 2
    assert "study 'tiny': is not in the storage" in missing.err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--sampler", "grid"], "--sampler: must be one of tpe, random, gp, cmaes, qmc"),
        (["--pruner", "magic"], "--pruner: must be one of none, median"),
        (["--sampler", "tep"], "got 'tep'; did you mean 'tpe'?"),
        (["--dataset", "mnst"], "got 'mnst'; did you mean 'mnist'?"),
        (["--device", "cude"], "got 'cude'; did you mean 'cuda'?"),
        (["--trails", "3"], "No such option: --trails"),
        (["--more", "2", "--trials", "3"], "--more: counts from what is stored, and --trials all"),
        (["--trials", "0"], "--trials: must be a whole number from 1 to"),
        (["--seeds", "3"], "--seeds: study 'tiny' is a search, which has no such option"),
        (["--sampler", "cmaes"], "sampler cmaes needs two ranges or more in the space, it has lr"),
    ],
)
def test_wrong_options_are_refused_in_a_line(arguments, line, forked_hpo, tiny):
    answer = forked_hpo("run", "tiny.toml", *arguments)
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert line in answer.err
    assert not (tiny / "hpo.db").exists()


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ("[1, 2]", "[]", "space.depth: is an empty list of choices"),
        ("low = 1e-3, high = 1.0", "low = 1.0, high = 1e-3", "low 1.0 is above high 0.001"),
        ("low = 1e-3, high = 1.0", "low = 0.0, high = 1.0", "space.lr: low:"),
        ("[search]", '[search]\nsampler = "best"', "search.sampler: must be one of tpe"),
        ("k = 2", "k = 0", "finalists.k: must be a whole number from 1"),
        ("k = 2", "k = 2\nseed = 3", "finalists.seed: unknown key; did you mean 'seeds'?"),
    ],
)
def test_wrong_study_files_are_refused_in_a_line(before, after, line, forked_hpo, tiny):
    (tiny / "tiny.toml").write_text(SEARCH.replace(before, after))
    answer = forked_hpo("run", "tiny.toml")
    assert answer.code == 2
    assert line in answer.err
    assert answer.err.count("\n") == 1


def test_a_grid_has_no_options_of_a_search(forked_hpo):
    answer = forked_hpo("run", "grid-report", "--trials", "5")
    assert answer.code == 2
    assert "--trials: study 'grid-report' is a grid, which has no such option" in answer.err
