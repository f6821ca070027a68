"""The median pruner beside asynchronous successive halving: the same search, the same seconds.

    HPO_DATA_DIR=… python tests/benchmarks/halving.py            about 25 minutes on 2 cores

Run it alone on the machine. Writes reports/published/benchmark-halving.md.
"""

import argparse
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import torch

from hpo.analysis.statistics import estimate
from hpo.study.file import shipped
from hpo.workers import provenance

PUBLISHED = Path(__file__).parents[2] / "reports/published/benchmark-halving.md"
PRUNERS = ("median", "asha")
EPOCHS = (1, 2, 3, 4)


def run(folder: Path, pruner: str, seed: int, options: argparse.Namespace) -> str:
    """Runs a search with one finalist. Returns its name."""
    text = shipped()[options.study].read_text("utf-8")
    begin, finalists = text.split("[finalists]")
    _, space = finalists.split("[space]")
    path = folder / "halving.toml"
    path.write_text(f"{begin}[finalists]\nk = 1\nseeds = {options.seeds}\n\n[space]{space}")
    name = f"{pruner}-{seed}"
    own = ["--name", name, "--storage", f"sqlite:///{folder}/hpo.db", "--out", str(folder)]
    asked = ["--pruner", pruner, "--sampler-seed", str(seed), "--timeout", str(options.timeout)]
    hpo = str(Path(sys.executable).with_name("hpo"))
    command = [hpo, "run", str(path), "--quiet", "--trials", "1000"]
    subprocess.run([*command, *own, *asked], stdout=subprocess.DEVNULL, check=True)
    return name


def searched(folder: Path, name: str) -> list[float]:
    """Returns trials that began, those trained to the end, epochs, the best value, the mean of the
    best three, and the winner's mean validation on fresh seeds; in percent."""
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/hpo.db")
    ended = [t for t in study.trials if t.state.is_finished() and t.values]
    complete = [t for t in ended if t.state.name == "COMPLETE" and not t.user_attrs["diverged"]]
    values = sorted((100 * t.value for t in complete), reverse=True)
    epochs = sum(len(t.intermediate_values) for t in ended)
    fresh = pd.read_csv(folder / name / "finalists.csv")["valid_accuracy"]
    best = [values[0], float(np.mean(values[:3])), 100 * fresh.mean()]
    return [len(ended), len(complete), epochs, *best]


def ranks(folder: Path, names: list[str]) -> str:
    """Says how the values after the first epochs rank the trials that were trained to the end."""
    said = []
    for epoch in EPOCHS:
        found = []
        for name in names:
            study = optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/hpo.db")
            rows = [
                (t.intermediate_values[epoch], t.value)
                for t in study.trials
                if t.state.name == "COMPLETE" and epoch in t.intermediate_values
            ]
            found.append(pd.DataFrame(rows).corr("spearman").iloc[0, 1])
        said.append(f"{np.mean(found):.2f} after {epoch}")
    return ", ".join(said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="search")
    parser.add_argument("--timeout", type=int, default=180)
    parser.add_argument("--searches", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2, help="of the winner, fresh")
    options = parser.parse_args()
    rows: dict[str, list[list[float]]] = {pruner: [] for pruner in PRUNERS}
    names = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.searches):
            for pruner in PRUNERS if seed % 2 else reversed(PRUNERS):
                name = run(Path(folder), pruner, seed, options)
                rows[pruner].append(searched(Path(folder), name))
                names += [name] if pruner == "median" else []
                print(name, rows[pruner][-1], flush=True)
        ranked = ranks(Path(folder), names)
    hardware = provenance.collect("")["hardware"]
    means = {pruner: np.mean(found, axis=0) for pruner, found in rows.items()}
    head = "trials | to the end | epochs | best value | mean of best 3 | winner, fresh seeds"
    lines = [
        "# Trials that pause",
        "",
        f"By `python tests/benchmarks/halving.py` on {hardware['processor']}, "
        f"{hardware['cores']} cores; Python {platform.python_version()}, torch "
        f"{torch.__version__}: `{options.study}`, {options.timeout} seconds of searching, "
        f"{options.searches} sampler seeds, by turns; means, validation accuracy in percent. The "
        f"winner is trained on {options.seeds} fresh seeds.",
        "",
        f"| pruner | {head} |",
        f"| --- |{' --- |' * 6}",
    ]
    for pruner, mean in means.items():
        values = [f"{v:.0f}" for v in mean[:3]] + [f"{v:.2f}" for v in mean[3:]]
        lines.append(f"| {pruner} | {' | '.join(values)} |")
    gains = np.array(rows["asha"]) - np.array(rows["median"])
    said = []
    for text, column in zip(("best value", "mean of best 3", "winner"), gains.T[3:], strict=True):
        found = estimate(column)
        said.append(f"{text} {found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f})")
    lines += [
        "",
        f"asha − median, in points, with the 95% t interval over {options.searches} pairs of "
        f"searches: {'; '.join(said)}.",
        "",
        f"Spearman's rank correlation of the value after an epoch with the last one, of the trials "
        f"of the median pruner that were trained to the end, mean over searches: {ranked}. The "
        "trials that it pruned are not among them.",
        "",
    ]
    PUBLISHED.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
