"""What a machine is and has installed: hardware, versions."""

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

DISTRIBUTION = "hpo-studies"  # the name "hpo" is another program's on the index
PACKAGES = ("torch", "torchvision", "optuna", "numpy", "scipy", "pandas", "matplotlib")


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
