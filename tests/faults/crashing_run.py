"""`hpo run` that is killed (SIGKILL) right before its n-th write to the storage.

python crashing_run.py N STUDY [OPTIONS]
"""

import os
import signal
import sys

from hpo import cli
from hpo.storage.retry import RetryingStorage

WRITES = ("create_new_trial", "set_")


def crash_at(last: int) -> None:
    call, done = RetryingStorage._call_once, 0

    def counted(self, name, *arguments, **named):
        nonlocal done
        done += name.startswith(WRITES)
        if done == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(self, name, *arguments, **named)

    RetryingStorage._call_once = counted


if __name__ == "__main__":  # workers load this file too
    number, *arguments = sys.argv[1:]
    sys.argv = ["hpo", "run", *arguments]
    crash_at(int(number))
    cli.main()
