"""A table with a rare class, by balanced accuracy: hpo beside scikit-learn's balanced weights.

    python tests/benchmarks/rare.py FOLDER --seconds 30 --splits 0 1 2

FOLDER holds oil-spill.csv, of which 4% of the rows are of class 1. Splits and hpo's template are
those of tables.py; run it alone on the machine. Writes reports/published/benchmark-rare.md.
"""

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np
from baselines import model, with_numbers
from sklearn.metrics import balanced_accuracy_score
from tables import (
    BOOSTING,
    HPO,
    ROOT,
    SPLITS,
    TABLES,
    Job,
    by_hpo,
    by_scikit_learn,
    corrected,
    interval,
    read,
    rows_of,
    table,
)
from threadpoolctl import threadpool_limits

PUBLISHED = ROOT / "reports/published/benchmark-rare.md"
FILE = "oil-spill"
SOUGHT = ('objective = "valid_balanced_accuracy"', 'class_weight = "balanced"')
WEIGHTED = f"{HPO}, balanced"
SIDES = (WEIGHTED, HPO, "logistic, balanced", "boosting, balanced", "boosting, tuned")


def answers(side: str, job: Job, folder: Path) -> list[str]:
    if side == HPO:
        return by_hpo(job, folder)["given"]
    if side == WEIGHTED:
        return by_hpo(Job(job.folder, FILE, job.split, HPO, job.seconds, SOUGHT), folder)["given"]
    if side == BOOSTING:
        return by_scikit_learn(job, folder)["given"]
    (frame, labels), (scored, _) = (
        read(folder / f"{n}.csv", TABLES[FILE]) for n in ("dev", "test")
    )
    frame, scored = with_numbers(frame, frame), with_numbers(scored, frame)
    values = {"class_weight": "balanced"} | ({"max_iter": 2000} if "logistic" in side else {})
    return model(side.split(", ")[0], frame, values).fit(frame, labels).predict(scored).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="with the file")
    parser.add_argument("--seconds", type=int, default=30, help="of each search")
    parser.add_argument("--splits", type=int, nargs="+", default=list(range(SPLITS)))
    options = parser.parse_args()
    found: dict[str, list[float]] = {side: [] for side in SIDES}
    for split in options.splits:
        for side in SIDES:
            job = Job(options.folder, FILE, split, side, options.seconds)
            with tempfile.TemporaryDirectory() as name, threadpool_limits(1):
                warnings.simplefilter("ignore", UserWarning)
                folder = Path(name)
                rows_of(job).write(folder)
                truth = read(folder / "test.csv", TABLES[FILE])[1]
                given = answers(side, job, folder)
            found[side].append(100 * balanced_accuracy_score(truth, given))
            print(split, side, f"{found[side][-1]:.1f}", flush=True)
    of = {side: np.array(values) for side, values in found.items()}
    rows = [
        [side, interval(values), corrected(of[WEIGHTED] - values) if side != WEIGHTED else ""]
        for side, values in of.items()
    ]
    lines = [
        "# A rare class",
        "",
        f"By `python tests/benchmarks/rare.py`: {FILE}, 937 rows, 4% of them of class 1; balanced "
        f"accuracy on the scored rows of {len(options.splits)} splits, and the difference in the "
        "same splits with the interval of Nadeau and Bengio (2003). A guess gets 50%.",
        "",
        *table(["", "balanced accuracy (%)", f"{WEIGHTED} − it"], rows),
        f"`{WEIGHTED}` is the template of tables with `{SOUGHT[0]}` and `{SOUGHT[1]}`; `{HPO}` is "
        "the template as it is, by accuracy. scikit-learn's logistic regression and boosting have "
        '`class_weight="balanced"` and else their defaults; its network takes no weights. Each '
        f"search has {options.seconds} seconds on one core. These splits had been scored before, "
        "by accuracy and balanced accuracy (benchmark-tables.md); nothing was changed after it.",
        "",
    ]
    PUBLISHED.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
