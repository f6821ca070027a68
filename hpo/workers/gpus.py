"""Which GPUs of this machine a run uses. Without torch."""

from collections import Counter
from collections.abc import Iterable, Sequence

from hpo.errors import InputError

VISIBLE = "CUDA_VISIBLE_DEVICES"  # CUDA reads it when a process first uses a GPU


def parts(device: str) -> tuple[str, list[int]]:
    """Returns the kind of --device and the numbers it chooses: cuda:0,1 is "cuda", [0, 1]."""
    kind, _, numbers = device.partition(":")
    return kind, [int(number) for number in numbers.split(",")] if numbers else []


def chosen(device: str, there: int, visible: str | None) -> list[str]:
    """Returns the entries of CUDA_VISIBLE_DEVICES, one for each GPU that --device chooses.

    there: how many GPUs torch sees. visible: the variable as the user set it, whose entries
    --device counts; None if it is not set. Raises InputError for a GPU that is not there.
    """
    known = [str(number) for number in range(there)] if visible is None else visible.split(",")
    known = [entry.strip() for entry in known[:there]]  # CUDA ends its list at a wrong entry
    _, numbers = parts(device)
    for number in numbers:
        if number >= len(known):
            has = f"cuda:0 to cuda:{there - 1}" if there > 1 else "cuda:0"
            where = "this machine has" if visible is None else f"{VISIBLE}={visible} leaves"
            raise InputError(f"{device}: there is no GPU {number}; {where} {has}")
    return [known[number] for number in numbers] or known


def least_used(entries: Sequence[str], used: Iterable[str]) -> str:
    """Returns the first of the GPUs that the fewest workers use; empty without GPUs. used: of each
    worker that there is, its GPU."""
    counts = Counter(used)
    return min(entries, key=lambda entry: counts[entry], default="")
