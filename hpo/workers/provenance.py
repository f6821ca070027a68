"""The origin of results: command, versions, commit, hardware."""

import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

from hpo.passwords import without_password

DISTRIBUTION = "hpo-studies"  # the name "hpo" is another program's on the index
PACKAGES = ("torch", "torchvision", "optuna", "numpy", "scipy", "pandas", "matplotlib")


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


def versions() -> dict[str, str]:
    """Returns the versions of Python, hpo and the PACKAGES."""
    known = {"python": platform.python_version(), "hpo": importlib.metadata.version(DISTRIBUTION)}
    return known | {name: importlib.metadata.version(name) for name in PACKAGES}


def hardware() -> dict[str, Any]:
    """Returns processor, cores, memory_gib (None if unknown) and system of this machine."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = re.findall(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return names[0] if names else platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None
