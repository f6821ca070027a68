"""Where the time of a whole command goes: before the first step, while workers train, after it.

    HPO_DATA_DIR=… python tests/benchmarks/whole.py            about 15 minutes on 2 cores
    HPO_DATA_DIR=… python tests/benchmarks/whole.py --quick    without ten seeds and the search

Run it alone on the machine. Writes reports/published/benchmark-whole.md. Medians of `--rounds`
runs.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hpo.workers import provenance

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
WORKERS = 2


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds of one run. trained: from the first training's start to the last one's end. busy: of
    that time, the share in which each of WORKERS cores trains."""

    imports: float
    data: float
    torch: float
    trained: float
    busy: float
    figures: float
    rest: float
    whole: float

    @property
    def before(self) -> float:
        return self.imports + self.data + self.torch

    @property
    def after(self) -> float:
        return self.figures + self.rest


def timed(arguments: Sequence[str], folder: Path) -> Times:
    """Runs `hpo run` with these arguments and a storage of its own."""
    trace = folder / "trace"
    own = ["--workers", str(WORKERS), "--quiet", "--storage", f"sqlite:///{folder}/hpo.db"]
    command = [sys.executable, str(HERE / "traced.py"), str(trace), "run", *arguments, *own]
    began = time.time()
    subprocess.run([*command, "--out", str(folder)], stdout=subprocess.DEVNULL, check=True)
    ended = time.time()
    events = [json.loads(line) for line in trace.read_text().splitlines()]
    at = {event["event"]: event["at"] for event in reversed(events)}  # the first of each
    last = {event["event"]: event["at"] for event in events}
    busy = [(event["at"], event["cores"]) for event in events if event["event"] == "busy"]
    first, stop = busy[0][0], busy[-1][0]
    worked = sum(cores * (busy[i + 1][0] - now) for i, (now, cores) in enumerate(busy[:-1]))
    loading = at["load_data ends"] - at["load_data begins"]
    written = last["write_report ends"] - last["write_report begins"]
    return Times(
        imports=at["load_data begins"] - began,
        data=loading,
        torch=first - at["load_data ends"],
        trained=stop - first,
        busy=worked / (WORKERS * (stop - first)),
        figures=written,
        rest=ended - stop - written,
        whole=ended - began,
    )


def command_seconds(arguments: Sequence[str], folder: Path) -> float:
    began = time.time()
    command = [sys.executable, "-m", "hpo.cli", *arguments]
    subprocess.run(command, stdout=subprocess.DEVNULL, cwd=folder, check=True)
    return time.time() - began


def runs(rounds: int, *, quick: bool) -> dict[str, list[Times]]:
    """Returns the times of each run, the runs in turns."""
    commands = {
        "grid-report on mnist-5k, 1 seed": ["grid-report", "--dataset", "mnist-5k", "--seeds", "1"],
        "grid-report, 1 seed": ["grid-report", "--seeds", "1"],
    }
    found: dict[str, list[Times]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, arguments in commands.items():
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(timed(arguments, Path(folder)))
    if not quick:
        once = {
            "grid-report, 10 seeds": ["grid-report", "--seeds", "10"],
            "search, 100 s": ["search", "--timeout", "100"],
        }
        for name, arguments in once.items():
            with tempfile.TemporaryDirectory() as folder:
                found[name] = [timed(arguments, Path(folder))]
    return found


def runs_table(found: dict[str, list[Times]]) -> list[str]:
    lines = [
        "| seconds | imports | data | torch, first worker | **before the first step** | training "
        "| **cores that train** | report | rest | **after the last epoch** | whole |",
        "| --- " * 11 + "|",
    ]
    for name, times in found.items():

        def median(part: str, times: list[Times] = times) -> float:
            return statistics.median(getattr(each, part) for each in times)

        shares = [f"{median(part):.1f}" for part in ("imports", "data", "torch", "before")]
        shares += [f"{median('trained'):.1f}", f"{100 * median('busy'):.1f}%"]
        shares += [f"{median(part):.1f}" for part in ("figures", "rest", "after", "whole")]
        lines.append(f"| {name} (n = {len(times)}) | " + " | ".join(shares) + " |")
    return lines


def commands_table(rounds: int) -> list[str]:
    """Times commands that train nothing, on a stored study of 10 seeds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command_seconds(
            ["run", "grid-report", "--dataset", "mnist-5k", "--seeds", "10", "--quiet"], folder
        )
        lines = ["| command | seconds |", "| --- | --- |"]
        for arguments in (["--help"], ["list"], ["show", "grid-report"], ["report", "grid-report"]):
            taken = [command_seconds(arguments, folder) for _ in range(rounds)]
            lines.append(f"| `hpo {' '.join(arguments)}` | {statistics.median(taken):.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="no ten-seed run and no search")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    found = runs(options.rounds, quick=options.quick)
    facts = provenance.collect("")
    machine = f"{facts['hardware']['processor']}, {facts['hardware']['cores']} cores"
    lines = [
        "# Where the time of a whole run goes",
        "",
        f"By `python tests/benchmarks/whole.py` on {machine}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, {WORKERS} workers. Files are in the system's cache.",
        "",
        *runs_table(found),
        "",
        "Imports: until the data are read; the workers' server loads torch meanwhile. Torch, first "
        "worker: until the first training starts. Training: until the last one ends, measured "
        "training times and a search's finalists and winner included. Cores that train: of this "
        "time; trainings whose times are compared run alone.",
        "",
        *commands_table(options.rounds),
        "",
    ]
    text = "\n".join(lines)
    (ROOT / "reports/published/benchmark-whole.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
