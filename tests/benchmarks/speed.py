"""How fast and how large: hpo beside the report's own way and JAX.

Writes reports/published/benchmark.md.

    HPO_DATA_DIR=… python tests/benchmarks/speed.py            about 10 minutes on 2 cores
    HPO_DATA_DIR=… python tests/benchmarks/speed.py --quick    without the ten-seed run

JAX is in the extra `benchmark`; without it, its rows are left out.

Run it alone on the machine. Epochs are timed in turns, A B C A B C …, and medians are given.
"""

import argparse
import gzip
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torchvision import datasets, transforms

from hpo.data import datasets as data
from hpo.data.catalog import NAMES
from hpo.study.config import Config, Seeds
from hpo.training.train import Examples, Split, train
from hpo.workers import provenance

try:
    import jax_mlp
except ImportError:
    jax_mlp = None

ROOT = Path(__file__).parent.parent.parent
BATCH = 64
TRAIN_ROWS = 48_000
EPOCHS, NARROW_CELLS, WIDE_CELLS = 10, 7, 1
STACK = 8


def config(width: int, epochs: int = 1) -> Config:
    return Config(
        depth=2, width=width, activation="sigmoid", optimizer="sgd", lr=0.1, epochs=epochs
    )


def module(width: int) -> nn.Sequential:
    """The report's network, as the report writes it."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, width), nn.Sigmoid(),
        nn.Linear(width, width), nn.Sigmoid(), nn.Linear(width, 10),
    )  # fmt: skip


def timed(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


# --- one epoch of training, one thread -----------------------------------------------------------


def our_epoch(width: int, examples: Examples, replicates: int) -> float:
    """A replicate's share of an epoch's training: the second epoch, without its validation."""
    rows = torch.randperm(len(examples.labels))
    splits = [Split(rows[:TRAIN_ROWS], rows[-1:])] * replicates
    seeds = [Seeds.of(seed) for seed in range(replicates)]
    epochs = list(train(config(width, epochs=2), examples, splits, seeds))
    return epochs[-1].seconds


def autograd_epoch(width: int, examples: Examples) -> float:
    """The plain in-memory loop: indexed tensors, nn.Module, autograd, torch.optim.SGD."""
    model = module(width)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    criterion = nn.CrossEntropyLoss()
    order = torch.randperm(len(examples.labels))[:TRAIN_ROWS]

    def run() -> None:
        loss_sum, correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        for rows in order.split(BATCH):
            labels = examples.labels[rows]
            optimizer.zero_grad()
            logits = model(examples.images[rows])
            loss = criterion(logits, labels)
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach() * len(rows)
            correct += (logits.argmax(1) == labels).sum()

    run()  # both sides have their first epoch behind them
    return timed(run)


def products_epoch(width: int) -> float:
    """The eight matrix products of a step and nothing else, into standing buffers."""
    sizes = [784, width, width, 10]
    weights = [torch.randn(a, b) * 0.05 for a, b in pairwise(sizes)]
    outputs = [torch.randn(BATCH, size) for size in sizes]
    deltas = [torch.randn(BATCH, size) for size in sizes]
    gradients = [torch.empty_like(weight) for weight in weights]

    def run() -> None:
        for _ in range(TRAIN_ROWS // BATCH):
            for layer in range(3):
                torch.mm(outputs[layer], weights[layer], out=outputs[layer + 1])
            for layer in (2, 1, 0):
                torch.mm(outputs[layer].t(), deltas[layer + 1], out=gradients[layer])
                if layer:
                    torch.mm(deltas[layer + 1], weights[layer].t(), out=deltas[layer])

    return timed(run)


class Jax:
    """Epochs of JAX, compiled before they are timed."""

    def __init__(self, examples: Examples) -> None:
        self.images, self.labels = examples.images.numpy(), examples.labels.numpy()
        self.trainers: dict[tuple[int, int], jax_mlp.Trainer] = {}

    def epoch(self, width: int, stack: int) -> float:
        if (width, stack) not in self.trainers:
            self.trainers[width, stack] = self.new(width, stack)
            self.trainers[width, stack].epoch()
        return self.trainers[width, stack].epoch()

    def new(self, width: int, stack: int) -> "jax_mlp.Trainer":
        return jax_mlp.Trainer(width, self.images, self.labels, TRAIN_ROWS, stack)


def ten_epochs_table(examples: Examples, theirs: Jax) -> list[str]:
    """Times ten epochs with their validation, from the first call on: JAX compiles within it."""
    lines = ["| ten epochs with validation, one core | 784-32-32-10 | 784-512-512-10 |"]
    lines += ["| --- | --- | --- |"]
    rows = torch.randperm(len(examples.labels))
    split = Split(rows[:TRAIN_ROWS], rows[TRAIN_ROWS:])

    def ours(width: int) -> None:
        list(train(config(width, epochs=10), examples, [split], [Seeds.of(0)]))

    def jax(width: int) -> None:
        trainer = theirs.new(width, 1)
        for _ in range(10):
            trainer.epoch()
            trainer.validate()

    for name, way in (("hpo", ours), ("JAX (jit, scan), compiling included", jax)):
        cells = [_seconds(timed(partial(way, width))) for width in (32, 512)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def epochs_table(examples: Examples, rounds: int, theirs: Jax | None) -> list[str]:
    torch.set_num_threads(1)
    lines = [
        "| one epoch of training, one thread | 784-32-32-10 | 784-512-512-10 |",
        "| --- | --- | --- |",
    ]
    ways: dict[str, Callable[[int], float]] = {
        "hpo": lambda width: our_epoch(width, examples, 1),
        f"hpo, {STACK} seeds stacked, a seed's share": lambda width: (
            our_epoch(width, examples, STACK) if width == 32 else float("nan")
        ),
        "autograd, in memory": lambda width: autograd_epoch(width, examples),
        "the matrix products alone": products_epoch,
    }
    if theirs:
        ways["JAX (jit, scan)"] = lambda width: theirs.epoch(width, 1)
        ways[f"JAX, {STACK} seeds (vmap), a seed's share"] = lambda width: (
            theirs.epoch(width, STACK) if width == 32 else float("nan")
        )
    medians: dict[tuple[str, int], float] = {}
    for width in (32, 512):
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                times[name].append(way(width))
        medians |= {(name, width): statistics.median(seen) for name, seen in times.items()}
    for name in ways:
        cells = [_seconds(medians[name, width]) for width in (32, 512)]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    one, stacked, autograd, _, *jax = ways
    ratios = [
        ("autograd / hpo", autograd, one),
    ]
    if jax:
        ratios += [("hpo / JAX", one, jax[0]), ("hpo stacked / JAX stacked", stacked, jax[1])]
    for title, above, below in ratios:
        cells = [_ratio(medians[above, w] / medians[below, w]) for w in (32, 512)]
        lines.append(f"| **{title}** | {cells[0]} | {cells[1]} |")
    return lines


def _seconds(value: float) -> str:
    return "–" if value != value else f"{value:.3f} s"


def _ratio(value: float) -> str:
    return "–" if value != value else f"{value:.2f}"


# --- the report's own way ------------------------------------------------------------------------


def plain_copy(folder: Path, target: Path) -> None:
    """MNIST's files as torchvision wants them: decompressed."""
    raw = target / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in NAMES:
        plain = folder / "MNIST" / "raw" / name
        if plain.is_file():
            shutil.copy(plain, raw)
        else:
            (raw / name).write_bytes(gzip.decompress(Path(f"{plain}.gz").read_bytes()))


def report_epoch(width: int, root: Path) -> float:
    """An epoch of training and validation by DataLoader and transforms, torch's default threads."""
    torch.set_num_threads(os.cpu_count() or 1)
    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    )
    whole = datasets.MNIST(root=str(root), train=True, transform=transform)
    parts = torch.utils.data.random_split(whole, [TRAIN_ROWS, len(whole) - TRAIN_ROWS])
    train_loader = torch.utils.data.DataLoader(parts[0], batch_size=BATCH, shuffle=True)
    valid_loader = torch.utils.data.DataLoader(parts[1], batch_size=BATCH)
    model, criterion = module(width), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def run() -> None:
        model.train()
        running, correct = 0.0, 0
        for inputs, labels in train_loader:
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = criterion(outputs, labels)
            loss.backward()
            optimizer.step()
            running += loss.item() * inputs.size(0)
            correct += (outputs.argmax(1) == labels).sum().item()
        model.eval()
        with torch.no_grad():
            for inputs, labels in valid_loader:
                outputs = model(inputs)
                running += criterion(outputs, labels).item() * inputs.size(0)
                correct += (outputs.argmax(1) == labels).sum().item()

    return timed(run)


# --- whole runs ----------------------------------------------------------------------------------


def whole_run(seeds: int, folder: Path) -> tuple[float, float]:
    """Seconds from command start to report written, and peak memory in GB (all processes; shared
    pages counted once)."""
    command = [sys.executable, "-m", "hpo.cli", "run", "grid-report", "--seeds", str(seeds)]
    command += ["--workers", "2", "--quiet", "--storage", f"sqlite:///{folder}/{seeds}.db"]
    start = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--out", str(folder)], stdout=subprocess.DEVNULL, env=os.environ
    )
    peak = [0.0]
    watcher = threading.Thread(target=_watch, args=(process, peak), daemon=True)
    watcher.start()
    if process.wait() != 0:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    seconds = time.perf_counter() - start
    watcher.join()
    return seconds, peak[0]


def _watch(process: subprocess.Popen[bytes], peak: list[float]) -> None:
    while process.poll() is None:
        peak[0] = max(peak[0], sum(map(_pss, _family(process.pid))) / 1e9)
        time.sleep(0.5)


def _family(pid: int) -> list[int]:
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            text = children.read_text()
        except OSError:  # the process has just ended
            continue
        for child in text.split():
            found += _family(int(child))
    return found


def _pss(pid: int) -> float:
    """Proportional set size in bytes; 0 for a process that has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    line = next((line for line in text.splitlines() if line.startswith("Pss:")), "Pss: 0")
    return 1024 * float(line.split()[1])


def torch_alone() -> float:
    """Memory in GB of a process that has imported torch and nothing else."""
    code = "import torch, time; print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        size = _pss(process.pid)
        process.kill()
    return size / 1e9


def whole_table(folder: Path, quick: bool, rounds: int) -> list[str]:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        plain_copy(folder, root)
        narrow_times, wide_times, ours = [], [], []
        for _ in range(rounds):
            narrow_times.append(report_epoch(32, root))
            ours.append(whole_run(1, Path(tempfile.mkdtemp(dir=root))))
            wide_times.append(report_epoch(512, root))
        narrow, wide = statistics.median(narrow_times), statistics.median(wide_times)
        theirs = EPOCHS * (NARROW_CELLS * narrow + WIDE_CELLS * wide)
        seconds, peak = statistics.median(s for s, _ in ours), max(p for _, p in ours)
        lines = [
            "| `hpo run grid-report`, 2 workers | value |",
            "| --- | --- |",
            f"| the report's way, an epoch of 784-32-32-10 | {narrow:.1f} s |",
            f"| the report's way, an epoch of 784-512-512-10 | {wide:.1f} s |",
            f"| the report's way, 8 trainings of 10 epochs (scaled) | {theirs:.0f} s |",
            f"| hpo, 8 trainings, command start to report written | {seconds:.1f} s |",
            f"| **times faster, one seed** | {theirs / seconds:.1f} |",
        ]
        if not quick:
            ten, peak_ten = whole_run(10, root)
            peak = max(peak, peak_ten)
            lines += [
                f"| hpo, 80 trainings | {ten:.1f} s, a training's share {ten / 80:.2f} s |",
                f"| **times faster, ten seeds, a training's share** | {10 * theirs / ten:.1f} |",
            ]
    lines.append(
        f"| peak memory, all processes | {peak:.2f} GB (torch alone {torch_alone():.2f}) |"
    )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="no ten-seed run, fewer rounds")
    quick = parser.parse_args().quick
    folder = Path(os.environ.get("HPO_DATA_DIR") or data.default_dir())
    loaded = data.load("mnist", folder)
    examples = Examples(
        torch.from_numpy(loaded.train_images), torch.from_numpy(loaded.train_labels)
    )
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # one core for all, JAX's own threads included
    theirs = Jax(examples) if jax_mlp else None
    epochs = epochs_table(examples, 3 if quick else 7, theirs)
    ten = ten_epochs_table(examples, theirs) if theirs else []
    os.sched_setaffinity(0, cores)
    whole = whole_table(folder, quick, 1 if quick else 3)
    facts = provenance.collect("")
    machine = f"{facts['hardware']['processor']}, {facts['hardware']['cores']} cores"
    text = "\n".join(
        [
            "# Benchmark",
            "",
            f"By `python tests/benchmarks/speed.py` on {machine}; Python "
            f"{platform.python_version()}, torch {torch.__version__}. Medians.",
            "",
            *epochs,
            "",
            *whole,
            "",
            *ten,
            "",
        ]
    )
    (ROOT / "reports/published/benchmark.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
