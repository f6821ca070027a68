"""The hpo command with a stopwatch, for whole.py: writes when what begins and ends.

    python traced.py FILE run grid-report …

FILE gets lines of JSON: seconds since 1970, event, details. Workers import this module, too, so
that all work is below the last line.
"""

import functools
import json
import sys
import time
from pathlib import Path
from typing import Any


def watch(file: Path) -> None:
    """Wraps the functions that begin and end a part of a run."""
    from hpo import session
    from hpo.workers import pool

    lines = file.open("a", buffering=1)

    def note(event: str, **details: Any) -> None:
        print(json.dumps({"at": time.time(), "event": event, **details}), file=lines)

    def wrap(owner: Any, name: str) -> None:
        inner = getattr(owner, name)

        @functools.wraps(inner)
        def outer(*args: Any, **kwargs: Any) -> Any:
            note(f"{name} begins")
            result = inner(*args, **kwargs)
            note(f"{name} ends")
            return result

        setattr(owner, name, outer)

    note("imported")
    for name in ("load_data", "_workers", "_train_and_report", "_report", "write_report"):
        wrap(session, name)
    wrap(pool.LocalPool, "__enter__")
    start, set_cores, receive = (
        getattr(pool.LocalPool, name) for name in ("start", "_set_cores", "_receive")
    )

    def busy(self: pool.LocalPool) -> None:
        note("busy", cores=sum(worker.cores for worker in self._places if worker.task))

    def starting(self: pool.LocalPool, worker: int, task: Any) -> None:
        start(self, worker, task)
        busy(self)

    def setting(self: pool.LocalPool, worker: Any, count: int) -> None:
        changed = worker.cores != count
        set_cores(self, worker, count)
        if changed:
            busy(self)

    def receiving(self: pool.LocalPool, worker: Any) -> Any:
        worked = worker.task
        event = receive(self, worker)
        if worked and not worker.task:
            busy(self)
        return event

    pool.LocalPool.start = starting  # type: ignore[method-assign]
    pool.LocalPool._set_cores = setting  # type: ignore[method-assign]
    pool.LocalPool._receive = receiving  # type: ignore[method-assign]


if __name__ == "__main__":
    began = time.time()
    from hpo.cli import script

    target = Path(sys.argv.pop(1))
    with target.open("a") as opened:
        print(json.dumps({"at": began, "event": "python"}), file=opened)
    sys.argv[0] = "hpo"
    if sys.argv[1] == "run":
        watch(target)
    script()
