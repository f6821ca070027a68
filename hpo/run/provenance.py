"""Where results come from: command, versions, commit, hardware."""

import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

from hpo.passwords import shown

PACKAGES = ("hpo", "torch", "torchvision", "optuna", "numpy", "scipy", "pandas", "matplotlib")


def command_line(arguments: list[str]) -> str:
    """The command as it was typed, passwords in URLs blotted out, what is no text escaped."""
    typed = shlex.join(["hpo", *map(shown, arguments)])
    return typed.encode(errors="backslashreplace").decode()


def collect(arguments: list[str]) -> dict[str, Any]:
    """What is known before a run starts."""
    return {
        "command": command_line(arguments),
        "host": platform.node(),
        "versions": {"python": platform.python_version(), **_versions()},
        "git_commit": _git_commit(),
        "hardware": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gib": _memory_gib(),
            "system": f"{platform.system()} {platform.machine()}",
        },
    }


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def _git_commit() -> str | None:
    """The commit of the checkout that hpo runs from, "-dirty" where files differ; None outside."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


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
