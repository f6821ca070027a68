"""The README's commands, its tree and its tables are true."""

import re
import subprocess
from pathlib import Path

import pytest

from hpo.study import names
from hpo.study.metrics import OBJECTIVES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def test_the_two_commands_stand_as_promised():
    assert (
        "python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/hpo run grid-report"
        in (README.splitlines())
    )
    assert "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest" in (
        README.splitlines()
    )


def test_every_command_of_the_readme_is_a_command(forked_hpo):
    commands = set(re.findall(r"`hpo ((?:data )?[a-z]+)", README))
    assert {"run", "report", "show", "list", "dashboard", "data get", "data list"} <= commands
    for command in commands:
        assert forked_hpo(*command.split(), "--help").code == 0, command


def test_the_tree_lists_every_folder():
    tree = README.split("## How it is built")[1]
    listed = set(re.findall(r"^  (\w+)/ ", tree, re.MULTILINE))
    there = {path.parent.name for path in (ROOT / "hpo").glob("*/__init__.py")}
    assert listed == there


def test_pictures_and_files_that_it_links_are_there():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_what_a_run_writes_by_default_is_no_change_of_the_checkout():
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    git = ["git", "-C", str(ROOT)]
    committed = subprocess.check_output([*git, "ls-files", "reports"], text=True).split()
    assert all(path.startswith("reports/published/") for path in committed)
    written = ["mlruns/0/meta.yaml",
               "reports/grid-report/index.html", "hpo.db", "hpo.db-wal", "hpo.db-journal",
               "hpo.artifacts/a", "exports/search/trials.parquet"]  # fmt: skip
    ignored = subprocess.run([*git, "check-ignore", *written], capture_output=True, text=True)
    assert ignored.stdout.split() == written
    published = [*git, "check-ignore", "reports/published/new/index.html"]
    assert subprocess.run(published, capture_output=True).returncode == 1


def test_it_is_short():
    assert len(README.split()) <= 1800


def test_the_reference_of_study_files_lists_the_values_of_every_choice():
    text = (ROOT / "studies/README.md").read_text("utf-8")
    for table in (names.ACTIVATIONS, names.OPTIMIZERS, names.SCHEDULES, names.NORMS, names.INITS,
                  names.SAMPLERS, names.PRUNERS, OBJECTIVES):  # fmt: skip
        assert not [name for name in table if f"`{name}`" not in text]


def test_its_tables_are_those_of_the_committed_results():
    rows = {line.strip() for line in README.splitlines() if line.startswith("|")}
    report = (ROOT / "reports/published/search/report.md").read_text("utf-8")
    finalists = report.split("## The finalists")[1].split("##")[0]
    benchmark = (ROOT / "reports/published/benchmark.md").read_text("utf-8").split("`hpo run")[0]
    for text, least in ((finalists, 2 + 3), (benchmark, 2 + 7)):
        table = [line.strip() for line in text.splitlines() if line.startswith("| ")]
        assert len(table) >= least
        assert {row for row in table if not set(row) <= set("|- ")} <= rows


def test_its_figures_are_those_of_the_committed_results():
    report = (ROOT / "reports/published/grid-report/report.md").read_text("utf-8")
    readme = README.replace("\n", " ")
    tally = re.search(
        r"Of (\d+) conclusions (\d+) hold, (\d+) are unresolved, (\d+) are refuted, 1 is not",
        report,
    )
    assert tally is not None
    assert f"the report's {tally[1]} conclusions" in readme
    found = f"**{tally[2]} hold**, **{tally[4]} are refuted**, **{tally[3]} are unresolved** and 1"
    assert found in readme
    [(trainings, clock)] = re.findall(r"(\d+) trainings on MNIST, (.*?) by the clock", report)
    assert f"It made {trainings} trainings in {clock}" in readme
    fresh = (ROOT / "reports/published/grid-report-fresh/report.md").read_text("utf-8")
    hold, unresolved, refuted = re.findall(r"(\d+) (?:hold|are unresolved|are refuted)", fresh)[:3]
    assert f"ten others: {hold} hold, {refuted} are refuted, {unresolved} are unresolved" in readme
    search = (ROOT / "reports/published/search/report.md").read_text("utf-8")
    [(trials, clock)] = re.findall(r"(\d+) networks tried on MNIST .*?: (.*?) by the clock", search)
    assert f"{trials} trials in {clock}" in readme
    [(least, most)] = re.findall(r"3 searches with .*? ended at ([\d.]+) to ([\d.]+)%", search)
    assert f"three searches ended at {least} to {most}%" in readme
    [noise] = re.findall(
        r"(?i:ReLU, SGD,? (?:at|lr)) 0.1 differ by more than (\d\.\d+) points",
        (ROOT / "reports/published/noise/report.md").read_text("utf-8"),
    )
    assert f"differ by more than {noise} points of test accuracy by chance" in readme
    factor = re.findall(
        r"ten seeds, a training's share\*\* \| ([\d.]+) ",
        (ROOT / "reports/published/benchmark.md").read_text("utf-8"),
    )
    assert f"{factor[0]} times less time a training" in README
    whole = (ROOT / "reports/published/benchmark-whole.md").read_text("utf-8")
    [row] = [line for line in whole.splitlines() if line.startswith("| grid-report, 1 seed")]
    assert f"Training begins after {row.split('|')[5].strip()} seconds" in README


# --- its examples ------------------------------------------------------------------------------


def block(language: str, containing: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return next(text for text in blocks if containing in text)


def test_its_own_study_runs(hpo, tmp_path):
    text = block("toml", "Does width pay?").replace("fashion-mnist", "mnist-5k")
    text = text.replace("lr = 1e-3", "lr = 1e-3\nepochs = 2")
    (tmp_path / "does-width-pay.toml").write_text(text)
    answer = hpo("run", "does-width-pay.toml", "--seeds", "1", "--quiet")
    assert answer.code == 0, answer.err
    assert "wide" in answer.out


def test_its_script_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(block("python", "hpo.Objective").replace("n_trials=20", "n_trials=1"), {})
    assert float(capsys.readouterr().out.split()[0]) > 0
