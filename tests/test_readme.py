"""The README's commands, its tree and its tables are true."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

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


def test_every_command_of_the_readme_is_a_command():
    commands = set(re.findall(r"`hpo ((?:data )?[a-z]+)", README))
    assert {"run", "report", "show", "list", "dashboard", "data get", "data list"} <= commands
    for command in commands:
        words = [sys.executable, "-m", "hpo.cli", *shlex.split(command), "--help"]
        assert subprocess.run(words, capture_output=True, check=False).returncode == 0, command


def test_the_tree_lists_every_folder():
    tree = README.split("## How it is built")[1]
    listed = set(re.findall(r"^  (\w+)/ ", tree, re.MULTILINE))
    there = {path.parent.name for path in (ROOT / "hpo").glob("*/__init__.py")}
    assert listed == there


def test_pictures_and_files_that_it_links_are_there():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_its_tables_are_those_of_the_committed_results():
    report = (ROOT / "reports/grid-report/report.md").read_text("utf-8")
    table = re.findall(
        r"^\|.*\| *$", report.split("## All networks")[1].split("##")[0], re.MULTILINE
    )
    rows = [line.strip() for line in README.splitlines()]
    assert len(table) == 2 + 9
    assert all(row.strip() in rows for row in table[2:])
    for name in ("benchmark.md", "benchmark-search.md"):
        benchmark = (ROOT / "reports" / name).read_text("utf-8")
        assert all(row in rows for row in benchmark.splitlines() if row.startswith("|")), name


def test_its_search_is_the_committed_one():
    report = (ROOT / "reports/search/report.md").read_text("utf-8")
    finalists = report.split("## The finalists")[1].split("##")[0]
    table = re.findall(r"^\|.*\| *$", finalists, re.MULTILINE)
    assert len(table) == 2 + 3
    rows = [line.strip() for line in README.splitlines()]
    assert all(row.strip() in rows for row in table)


def test_its_verdicts_and_its_noise_are_the_committed_ones():
    report = (ROOT / "reports/grid-report/report.md").read_text("utf-8")
    tally = re.search(r"Of (\d+) conclusions (\d+) hold, (\d+) are unresolved\.", report)
    assert tally is not None
    for words in (f"the report's {tally[1]} conclusions", f"**{tally[2]} hold**"):
        assert words in README
    assert f"**{tally[3]} are unresolved, none is refuted**" in README
    noise = (ROOT / "reports/noise/report.md").read_text("utf-8")
    section = noise.split("## Where the spread")[1].split("| True")[0]
    table = re.findall(r"^\|.*\| *$", section, re.MULTILINE)
    assert len(table) == 2 + 8
    rows = [line.strip() for line in README.splitlines()]
    assert all(row.strip() in rows for row in table[2:])
