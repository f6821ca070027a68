"""Faults injected for real: a few in the suite, and with HPO_FAULTS=full as many as were promised,
whose figures go into reports/published/faults.md."""

import fcntl
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

FULL = os.environ.get("HPO_FAULTS") == "full"
ONLY_FULL = "only with HPO_FAULTS=full"
TABLE = Path(__file__).parents[1] / "reports/published/faults.md"
HEAD = """\
# Faults injected, and what became of the studies

Written by `HPO_FAULTS=full .venv/bin/pytest -m "" -n 0 tests/faults`, on 2 cores. Every
fault is real: processes are killed, disks are full, servers restart. The suite itself injects a few
of each.

| # | What was done | How often | What came of it | Time |
| --- | --- | --- | --- | --- |
"""


@pytest.fixture
def amount() -> Callable[[int, int], int]:
    """amount(few, many): `few` in the suite, `many` with HPO_FAULTS=full."""
    return lambda few, many: many if FULL else few


@pytest.fixture
def full() -> None:
    """Leaves a test out of the suite, because it takes long."""
    if not FULL:
        pytest.skip(ONLY_FULL)


def leave_out(tests: Sequence[pytest.Item]) -> None:
    """Marks the tests that use the fixture `full`, so that they are skipped before the servers of
    their other fixtures start."""
    for test in tests:
        if not FULL and "full" in getattr(test, "fixturenames", ()):
            test.add_marker(pytest.mark.skip(reason=ONLY_FULL))


@pytest.fixture
def tally() -> Callable[[str, str, int | str, str], None]:
    """tally(number, what, how often, what came of it) writes a row of the table, with the time that
    the test took so far; the numbers order the rows ("1.2"). Only with HPO_FAULTS=full."""
    started = time.monotonic()

    def write(number: str, what: str, count: int | str, outcome: str) -> None:
        if not FULL:
            return
        count = f"{count:,}" if isinstance(count, int) else count
        row = f"| {number} | {what} | {count} | {outcome} | {time.monotonic() - started:.0f} s |"
        with open(os.open(TABLE, os.O_RDWR | os.O_CREAT, 0o644), "r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            rows = {line.split(" | ")[0]: line for line in file.read().splitlines()[7:]}
            rows[f"| {number}"] = row
            file.seek(0)
            file.truncate()
            file.write(HEAD + "\n".join(rows[key] for key in sorted(rows, key=_order)) + "\n")

    return write


def _order(key: str) -> list[int]:
    """Of a row's first cell: 1.2, 1.10, 2.1."""
    return [int(part) for part in key.removeprefix("| ").split(".")]
