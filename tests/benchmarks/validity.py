"""Whether verdicts, leads and intervals err as rarely as they say; writes a table.

python tests/benchmarks/validity.py [sqlite:///hpo.db] writes, in about ten minutes,
reports/published/benchmark-validity.md. The storage: one that holds grid-report, to time the test
of its claims.
"""

import sys
import time
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, stats

from hpo.analysis import evidence
from hpo.analysis.components import crossed
from hpo.analysis.hypothesis_tests import Verdict, judge
from hpo.analysis.precision import mean_squares, precision
from hpo.analysis.selection import lead

STUDIES, CLAIMS, LOOKS, PLANNED = 2_000, 20, 60, 10
SEEDS = (2, 3, 5, 10)
OVERLAP = 0.25  # images to validate on over images to train on, as `hpo` splits them
IMAGES = 50  # of a run in the simulation of crossed runs
TRUTHS = {  # variances of split, weights and order, of what they do together, and of the images
    "a third each split, weights and order": {"s": 1.0, "w": 1.0, "so": 1.0, "i": 0.03},
    "99% split": {"s": 1.0, "i": 0.01},
    "99% all three together": {"swo": 1.0, "i": 0.01},
    "a third split, the rest all three together": {"s": 1.0, "swo": 2.0, "i": 0.03},
    "two thirds images, the rest all sources alike": {
        "s": 1.0, "w": 1.0, "sw": 1.0, "so": 1.0, "swo": 1.0, "i": 10.0,
    },
}  # fmt: skip
Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator], Floats]
OUT = Path(__file__).parents[2] / "reports/published/benchmark-validity.md"


# --- verdicts ----------------------------------------------------------------------------------


Test = Callable[..., evidence.Evidence]


def ever_false(
    draw: Draw, test: Test, studies: int = STUDIES, *, wrong: bool = True, planned: int = PLANNED
) -> float:
    """Returns the share of studies of CLAIMS claims that one network is above another, or a number,
    in which any look, after each of LOOKS seeds, gives a verdict. All are equal, so every claim is
    false. wrong: only claims that are called held; otherwise any verdict. planned: 0: no plan."""
    rng, false = np.random.default_rng(0), 0
    unwanted = {Verdict.HOLDS} if wrong else {Verdict.HOLDS, Verdict.REFUTED}
    for _ in range(studies):
        found = [test(draw(rng), planned=planned or None) for _ in range(CLAIMS)]
        # p-values only fall, so the last look has every verdict that an earlier one had.
        judged = judge([evidence.combine([each]) for each in found])
        false += any(of.verdict in unwanted for of in judged)
    return false / studies


def ever_false_by_t(draw: Draw, studies: int) -> float:
    """Returns the same for the t-test of a fixed number of seeds with Holm's correction, repeated
    at every look from 3 seeds on."""
    rng, false = np.random.default_rng(0), 0
    n = np.arange(1, LOOKS + 1)
    for _ in range(studies):
        values = np.array([draw(rng) for _ in range(CLAIMS)])
        means = np.cumsum(values, axis=1) / n
        squares = np.cumsum(values**2, axis=1) - n * means**2
        with np.errstate(divide="ignore", invalid="ignore"):
            t = means / np.sqrt(squares / (n - 1) / n)
        p = 2 * stats.t.sf(np.abs(t[:, 2:]), n[2:] - 1)
        false += bool((p.min(axis=0) * CLAIMS < evidence.LEVEL).any())
    return false / studies


def normal(rng: np.random.Generator) -> Floats:
    return rng.normal(0, 1, LOOKS)


def one_fails(rng: np.random.Generator) -> Floats:
    """Differences of two networks that are alike where both learn, of which one fails to learn with
    5% of its runs; only pairs that learn are compared, as claims on means are."""
    learn = rng.random(LOOKS) > 0.05
    return rng.normal(0, 1, LOOKS)[learn]


def one_fails_in_means(rng: np.random.Generator) -> Floats:
    """Differences of two networks with equal means over all runs, of which the first fails with 5%
    of its runs, losing 85 points; where it learns it is so much better that the means are equal."""
    values = rng.normal(0.05 / 0.95 * 85, 1, LOOKS)
    return np.where(rng.random(LOOKS) < 0.05, -85.0, values)


def both_fail(rng: np.random.Generator) -> Floats:
    """Differences of two alike networks that each fail with 5% of their runs."""
    lost = [np.where(rng.random(LOOKS) < 0.05, 85.0, 0.0) for _ in range(2)]
    return rng.normal(0, 1, LOOKS) + lost[0] - lost[1]


def skewed(skewness: float, *, median: bool = False) -> Draw:
    """Returns what draws negative gamma values of this skewness, to the left, with a mean of 0, or
    a median of 0: the direction in which a t-test errs more often."""
    shape = 4 / skewness**2
    middle = float(stats.gamma(shape).median()) if median else shape
    return lambda rng: middle - rng.gamma(shape, 1, LOOKS)


def ratios(skewness: float) -> Draw:
    """Returns what draws logarithms of the ratio of two losses of equal distribution, log-normal
    with this skewness."""
    spread = optimize.brentq(lambda s: stats.lognorm(s).stats("s") - skewness, 1e-3, 2)
    return lambda rng: rng.normal(0, spread, LOOKS) - rng.normal(0, spread, LOOKS)


def either(skewness: float) -> Draw:
    """Returns what draws values of this skewness to the left or to the right, by a coin."""
    draw = skewed(skewness)
    return lambda rng: rng.choice([-1, 1]) * draw(rng)


def best_of_groups(rng: np.random.Generator) -> Floats:
    """Draws the differences of the best of three networks by validation and the best of three
    others, all equal; both are chosen by the seeds before, see analysis.claims.chosen."""
    shared = rng.normal(0, 1, (LOOKS, 1))
    valid, test = (shared + rng.normal(0, 1, (LOOKS, 6)) for _ in range(2))
    test += 0.7 * (valid - shared)  # the runs that validate well also test well
    means = np.cumsum(valid, axis=0)[:-1]
    chosen = (means[:, :3].argmax(axis=1), 3 + means[:, 3:].argmax(axis=1))
    rows = np.arange(1, LOOKS)
    return np.asarray(test[rows, chosen[0]] - test[rows, chosen[1]])


# --- leads, intervals, shares ------------------------------------------------------------------


def leads(
    k: int, *, ahead: float = 0.0, shared: float = 0.0, seeds: int = 5, studies: int = 10_000
) -> Floats:
    """Returns how often the winner of k finalists is said to lead and, with `ahead`, is the right
    one: by `lead`, and by the same test with the correction for splits that overlap.

    A run's accuracy has a deviation of 1 beside its seed's, which all finalists share. ahead: the
    true lead of one of them, in these deviations. shared: the part of the variance that the runs of
    a network have in common, because their splits overlap.
    """
    rng, found = np.random.default_rng(k), np.zeros(2)
    for _ in range(studies):
        values = 50 + rng.normal(0, 1, (seeds, 1)) + rng.normal(0, (1 - shared) ** 0.5, (seeds, k))
        values += rng.normal(0, shared**0.5, k)
        values[:, 0] += ahead
        exact = lead(values)
        right = not ahead or values.mean(axis=0).argmax() == 0
        half = np.array([1, (1 + seeds * OVERLAP) ** 0.5]) * (exact.high - exact.mean)
        found += right & (exact.mean > half)
    return found / studies


def led_by_pairs(k: int, seeds: int = 5, studies: int = STUDIES) -> float:
    """Returns how often the first of k equal finalists leads any other by a paired t interval."""
    rng, false = np.random.default_rng(k), 0
    for _ in range(studies):
        values = rng.normal(0, 1, (seeds, 1)) + rng.normal(0, 1, (seeds, k))
        apart = values[:, [values.mean(axis=0).argmax()]] - values
        sd = apart.std(axis=0, ddof=1)
        low = apart.mean(axis=0) - stats.t.ppf(0.975, seeds - 1) * sd / seeds**0.5
        false += bool((low[sd > 0] > 0).any())
    return false / studies


def runs_of(rng: np.random.Generator, image: Floats, seeds: int, skew: bool) -> Floats:
    """Returns (seeds, images) of which images a network gets right. image: how easy each is."""
    seed = rng.exponential(1, seeds) - 1 if skew else rng.normal(0, 1, seeds)
    logit = image + 0.15 * seed[:, None] + rng.normal(0, 0.5, (seeds, image.size))
    return (rng.random((seeds, image.size)) < 1 / (1 + np.exp(-logit))).astype(float)


def coverage(
    skew: bool, seeds: int, *, two: bool = False, images: int = 1_000, studies: int = STUDIES
) -> tuple[float, float]:
    """Returns how often the interval over seeds and images holds the true accuracy, and that of the
    images' share the true share. two: of the difference of two networks."""
    rng, found = np.random.default_rng(seeds + skew), []
    for _ in range(studies):
        image = 5 - 2 * rng.exponential(1, images) ** 2 if skew else rng.normal(4, 1.8, images)
        values = runs_of(rng, image, seeds, skew)
        if two:
            values -= runs_of(rng, image + rng.normal(0.3, 0.7, images), seeds, skew)
        exact, (of_seeds, _, of_both) = precision(values), mean_squares(values)
        found.append((exact.mean, *exact.both, of_seeds, of_both, *exact.images_share[1:]))
    mean, low, high, of_seeds, of_both, least, most = np.array(found).T
    # Truths: means over 2,000 studies, far more exact than any of them.
    truth, share = mean.mean(), of_both.mean() / of_seeds.mean()
    held = ((low < truth) & (truth < high)).mean(), ((least <= share) & (share <= most)).mean()
    return float(held[0]), float(held[1])


def crossed_runs(rng: np.random.Generator, variances: dict[str, float], blocks: int = 48) -> Floats:
    """Returns (blocks, 2, 2, 2, IMAGES) of runs whose sources have these variances: s, w and o are
    split, weights and order, an order is within its split, and i are the images."""
    runs = np.zeros((blocks, 2, 2, 2))
    for name, variance in variances.items():
        if name != "i":
            shape = (blocks, *(2 if source in name else 1 for source in "swo"))
            runs = runs + rng.normal(0, variance**0.5, shape)
    of_images = rng.normal(0, (IMAGES * variances["i"]) ** 0.5, (*runs.shape, IMAGES))
    return np.asarray(runs[..., None] + of_images)


def components_coverage(
    variances: dict[str, float], studies: int = 500
) -> tuple[Floats, Floats, Floats]:
    """Returns, of each component's share, how often its interval holds the truth, half the mean
    width of the interval, and the mean estimate; all in percent."""
    rng, found = np.random.default_rng(0), []
    truth = np.array([variances.get(name, 0.0) for name in ("s", "w", "sw", "so", "swo", "i")])
    for _ in range(studies):
        components = crossed(crossed_runs(rng, variances)).components
        found.append([(c.low, c.share, c.high) for c in components])
    low, share, high = np.moveaxis(np.array(found), -1, 0)
    truth /= truth.sum()
    held = (low <= truth + 1e-9) & (truth <= high + 1e-9)
    return 100 * held.mean(axis=0), 50 * (high - low).mean(axis=0), 100 * share.mean(axis=0)


# --- time --------------------------------------------------------------------------------------


def extra_time() -> float:
    """Returns the share of a training's time that it takes to find, pack and store the bits of a
    stack of five 784-32-32-10 networks, on images as many as MNIST's; one thread."""
    import torch

    from hpo.study.config import Config, Seeds
    from hpo.study.metrics import packed
    from hpo.training.evaluation import evaluate
    from hpo.training.train import Examples, Split, train

    torch.set_num_threads(1)
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(60_000, 784, generator=rng)
    examples = Examples(images, torch.randint(0, 10, (60_000,), generator=rng))
    split = Split(torch.arange(48_000), torch.arange(48_000, 60_000))
    config = Config(depth=2, width=32, activation="sigmoid", optimizer="sgd", lr=0.1, epochs=3)
    epochs = list(train(config, examples, [split] * 5, [Seeds.of(seed) for seed in range(5)]))
    whole = 10 * 5 * float(np.median([epoch.seconds for epoch in epochs]))
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(5):
        for right in (False, True):
            started = time.perf_counter()
            for rows in (torch.arange(48_000, 60_000), torch.arange(10_000)):
                every = rows.expand(5, -1)
                bits = evaluate(epochs[-1].network, examples, every, right=right)[2]
                _ = [packed(of) for of in bits.numpy()] if bits is not None else None
            times[right].append(time.perf_counter() - started)
    return float((np.median(times[True]) - np.median(times[False])) / whole)


def evidence_time(study: str) -> tuple[float, float]:
    """Returns the seconds that testing the claims of a stored grid takes, and those of its run."""
    from hpo.analysis.claims import claim_verdicts
    from hpo.results.load import load_study
    from hpo.results.study import StoredGrid
    from hpo.storage.open import open_storage

    stored = load_study(open_storage(study, create=False), "grid-report")
    assert isinstance(stored, StoredGrid)
    started = time.perf_counter()
    claim_verdicts(stored)
    return time.perf_counter() - started, sum(s["seconds"] for s in stored.sessions)


# --- the table ---------------------------------------------------------------------------------


def percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def verdict_rows() -> list[tuple[str, str, str]]:
    """Returns (figure, goal, measured) of verdicts."""
    means, signs = evidence.mean_above, evidence.mostly_above
    looks = f"{CLAIMS} claims on equal networks, looked at after each of {LOOKS} seeds"
    goal, compared = "≤ 5%", " (for comparison)"
    either_way = "The same, a verdict in either direction; which is better is wrong whichever it is"
    no_plan = "Means without a planned number of seeds"
    found = [
        (f"Any wrong verdict, {looks}, {PLANNED} of them planned: means", goal,
         ever_false(normal, means)),
        (either_way, "5.1%", ever_false(normal, means, wrong=False)),
        (no_plan, goal, ever_false(normal, means, planned=0)),
        ('Signs (`by = "wins"`)', goal, ever_false(normal, signs)),
        ("The t-test of a fixed n and Holm at each look" + compared, "–",
         ever_false_by_t(normal, STUDIES)),
        ("One cell fails with 5% of its runs, alike where both learn: means", goal,
         ever_false(one_fails, means)),
        ("Both cells fail with 5% of their runs: signs", goal, ever_false(both_fail, signs)),
        ("One cell fails with 5%, equal means over all runs, one claim, t-test of 10 seeds on all"
         + compared, "–", naive_means()),
        ("The best of three networks against the best of three, all equal: means", goal,
         ever_false(best_of_groups, means)),
    ]  # fmt: skip
    for skewness in (1.0, 2.0):
        draw = skewed(skewness, median=True)
        text = f"A skewed metric or one network's (skewness {skewness:g}): signs, as the rule says"
        found.append((text, goal, ever_false(draw, signs)))
        text = f"Losses of skewness {skewness:g}: logarithms, as the rule says"
        found.append((text, goal, ever_false(ratios(skewness), means)))
    for skewness in (0.35, 0.5, 1.0, 2.0):
        text = f"Means of differences of skewness {skewness:g}, each in either direction"
        found.append((text, "≤ 5% up to 0.5", ever_false(either(skewness), means)))
        text = f"The same, all {CLAIMS} in the direction in which the t-test errs more"
        found.append((text, "–", ever_false(skewed(skewness), means)))
    return [(text, goal, percent(share)) for text, goal, share in found]


def rows() -> list[tuple[str, str, str]]:
    """Returns (figure, goal, measured)."""
    found = verdict_rows()
    for k in (2, 3, 5, 10):
        false, true, common = (
            leads(k),
            leads(k, ahead=2.0),
            leads(k, shared=OVERLAP / (1 + OVERLAP)),
        )
        measured = (
            f"{percent(false[0])} (any lead by paired t intervals: {percent(led_by_pairs(k))})"
        )
        found.append(
            (f"False lead of the winner, k = {k} equal finalists, 5 seeds", "≤ 5%", measured)
        )
        found.append(
            (
                "The same if splits that overlap make runs alike (Nadeau and Bengio's assumption)",
                "no goal",
                f"{percent(common[0])} (with their correction: {percent(common[1])})",
            )
        )
        found.append(
            (
                f"A true lead of 2 sd said to be one, k = {k}, 5 seeds",
                "≥ 50%",
                f"{percent(true[0])} (with their correction: {percent(true[1])})",
            )
        )
    for two, skew in product((False, True), repeat=2):
        kind = f"{'differences, ' if two else ''}{'skewed' if skew else 'normal'}"
        held = [coverage(skew, seeds, two=two) for seeds in SEEDS]
        texts = "Coverage of 95% intervals over seeds and images", "The same of the images' share"
        for text, shares in zip(texts, zip(*held, strict=True), strict=True):
            row = (
                f"{text}, {kind}, {listed(SEEDS)} seeds",
                "93 to 97%",
                listed(map(percent, shares)),
            )
            found.append(row)
    for name, variances in TRUTHS.items():
        held, half, mean = components_coverage(variances)
        largest = int(mean.argmax())
        measured = (
            f"{held.min():.1f} to {held.max():.1f}% (the largest: {mean[largest]:.0f}% ± "
            f"{half[largest]:.0f} points)"
        )
        text = f"Coverage of the six components of the spread, 48 blocks, truly {name}"
        found.append((text, "92 to 98%", measured))
    return found


def naive_means(studies: int = STUDIES) -> float:
    """Returns how often a t-test at 5% on all 10 runs rejects equal means where one cell fails."""
    rng, false = np.random.default_rng(0), 0
    for _ in range(studies):
        false += stats.ttest_1samp(one_fails_in_means(rng)[:10], 0).pvalue < evidence.LEVEL
    return false / studies


def measured_skewness() -> tuple[float, float]:
    """Returns the skewness of validation accuracy in reports/published/noise: of the differences
    of sigmoid and ReLU, and of ReLU alone."""
    trials = pd.read_csv(OUT.parent / "noise/trials.csv").set_index("seed")
    values = {cell: of["valid_accuracy"] for cell, of in trials.groupby("cell")}
    return tuple(map(float, map(stats.skew, (values["sigmoid"] - values["relu"], values["relu"]))))


def main() -> None:
    started = time.time()
    found = rows()
    found.append(("Extra time of a training for its bits", "< 2%", percent(extra_time())))
    if len(sys.argv) > 1:
        seconds, run = evidence_time(sys.argv[1])
        measured = f"{seconds:.2f} s once a round, {percent(seconds / run)} of the run"
        found.append(("Testing the claims of the committed grid-report", "< 2%", measured))
    lines = [f"| {figure} | {goal} | {measured} |" for figure, goal, measured in found]
    skews = measured_skewness()
    text = [
        "# How often verdicts, leads and intervals err",
        "",
        f"Simulations by `python tests/benchmarks/validity.py`: {STUDIES:,} studies a row, 500 "
        "for shares. The standard error of 5% of 2,000 is 0.5%.",
        "",
        "| figure | goal | measured |",
        "| --- | --- | --- |",
        *lines,
        "",
        "A verdict is wrong if a claim that is false is called held, or a true one refuted, at any "
        "look. Skewness: the t-test assumes differences that are roughly normal. Those in "
        f"validation accuracy of the networks of `noise` have a skewness of {skews[0]:.2f} over "
        f"384 seeds; one network's own has up to {skews[1]:.2f}, so with a number it is compared "
        "by signs, and losses by their logarithms.",
        "",
        "Leads (10,000 studies): sd is that of a single run's accuracy without the part of a seed "
        "that all finalists share; a lead is one for other seeds and splits of the same data. With "
        "two seeds the interval over seeds and images is mostly that over seeds alone, which it is "
        "never narrower than; so it covers too often rather than too seldom. F, which the images' "
        "share rests on, assumes seeds that are roughly normal. Components: split, weights, both, "
        "order within the split, weights and order within the split, images; intervals of those "
        "that are truly 0 are cut at 0 and cover more often.",
    ]
    OUT.write_text("\n".join(text) + "\n", encoding="utf-8")
    print(OUT.read_text(encoding="utf-8"), f"{time.time() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
