"""Draws a report's pictures, on all cores where processes can be forked safely."""

import multiprocessing
import os
import sys
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress

from hpo.report.blocks.page import Picture

_pictures: Sequence[Picture] = ()  # of the processes that are forked


def draw(pictures: Sequence[Picture]) -> None:
    """Draws all pictures; afterwards their `svg` costs nothing.

    Forks are safe only from a process with one thread, as `hpo run` and `hpo report` are at that
    moment; elsewhere (notebooks, macOS), after the loss of a process and where the system gives
    none (a full /dev/shm) a picture is drawn when it is asked for.
    """
    global _pictures
    processes = min(len(pictures), os.cpu_count() or 1)
    if sys.platform != "linux" or processes < 2 or threading.active_count() > 1:
        return
    _pictures = pictures
    try:
        with warnings.catch_warnings(), suppress(BrokenProcessPool, OSError):
            # Python 3.12 counts the sleeping threads of numpy's OpenBLAS, which survives a fork.
            warnings.simplefilter("ignore", DeprecationWarning)
            context = multiprocessing.get_context("fork")
            with ProcessPoolExecutor(processes, context) as pool:
                drawn = pool.map(_svg, range(len(pictures)))
                for picture, svg in zip(pictures, drawn, strict=True):
                    picture.__dict__["svg"] = svg  # as cached_property keeps it
    finally:
        _pictures = ()


def _svg(place: int) -> str:
    return _pictures[place].svg
