"""What the workers' server loads before it forks workers: torch and all that trains."""

import gc

from hpo.process import collect_seldom

collect_seldom()

import hpo.workers.worker  # noqa: E402, F401

gc.freeze()  # a collection in a worker would write to, and so copy, what all of them share
