"""`hpo run` with a watch on it: memory and time at every start of a job, as JSON into a file.

python watched_run.py FILE STUDY [OPTIONS]
"""

import json
import os
import sys
import time
from pathlib import Path

from hpo import cli
from hpo.runs.grid import GridPlan
from hpo.runs.search import SearchPlan

MIB = os.sysconf("SC_PAGE_SIZE") / 2**20
starts: list[tuple[int, float, float]] = []  # trials, seconds a trial, MiB of this process


def watched(plan: type) -> None:
    start = plan.next

    def next_(self, *state):
        began = time.perf_counter()
        job = start(self, *state)
        if job:
            seconds = time.perf_counter() - began
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * MIB
            starts.append((len(job.trials), seconds / len(job.trials), resident))
        return job

    plan.next = next_


if __name__ == "__main__":  # workers load this file too
    watched(GridPlan)
    watched(SearchPlan)
    file, *arguments = sys.argv[1:]
    sys.argv = ["hpo", "run", *arguments]
    try:
        cli.main()
    finally:
        Path(file).write_text(json.dumps(starts))
