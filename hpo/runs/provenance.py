"""The origin of results: command, versions, commit, hardware."""

import platform
import shlex
import subprocess
from pathlib import Path
from typing import Any

from hpo.passwords import without_password
from hpo.workers.machine import hardware, versions


def command_line(arguments: list[str]) -> str:
    """Returns the command as typed, without passwords, with bytes that are no text escaped."""
    typed = shlex.join(["hpo", *map(without_password, arguments)])
    return typed.encode(errors="backslashreplace").decode()


def collect(command: str) -> dict[str, Any]:
    """Returns what a session stores: command, host, versions, commit, hardware."""
    return {
        "command": command,
        "host": platform.node(),
        "versions": versions(),
        "git_commit": _git_commit(),
        "hardware": hardware(),
    }


def _git_commit() -> str | None:
    """Returns the commit of the checkout, "-dirty" if files differ; None outside a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
