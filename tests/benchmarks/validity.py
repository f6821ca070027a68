"""Whether verdicts, leads and intervals err as rarely as they say; writes a table.

python tests/benchmarks/validity.py [sqlite:///hpo.db] writes, in about five minutes,
reports/published/benchmark-validity.md. The storage: one that holds grid-report, to time the test
of its claims.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, stats

from hpo.analysis import evidence
from hpo.analysis.components import crossed
from hpo.analysis.hypothesis_tests import Verdict, judge
from hpo.analysis.precision import precision
from hpo.analysis.selection import against_best

STUDIES, CLAIMS, LOOKS, PLANNED = 2_000, 20, 60, 10
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


def false_lead(k: int, seeds: int = 5, studies: int = STUDIES) -> float:
    """Returns how often one of k equal finalists is called the best; half of the variance is the
    splits' that all share."""
    rng, false = np.random.default_rng(k), 0
    for _ in range(studies):
        values = rng.normal(0, 1, (seeds, 1)) + rng.normal(0, 1, (seeds, k))
        false += any(low == 0 for low, _ in against_best(values, 0.0))
    return false / studies


def false_lead_uncorrected(k: int, seeds: int = 5, studies: int = STUDIES) -> float:
    """Returns how often the first of k equal finalists leads any other by a paired t interval."""
    rng, false = np.random.default_rng(k), 0
    for _ in range(studies):
        values = rng.normal(0, 1, (seeds, 1)) + rng.normal(0, 1, (seeds, k))
        lead = values[:, [values.mean(axis=0).argmax()]] - values
        sd = lead.std(axis=0, ddof=1)
        low = lead.mean(axis=0) - stats.t.ppf(0.975, seeds - 1) * sd / seeds**0.5
        false += bool((low[sd > 0] > 0).any())
    return false / studies


def coverage(skew: bool, seeds: int, images: int = 1_000, studies: int = STUDIES) -> float:
    """Returns how often the interval over seeds and images holds the true accuracy."""
    rng, found = np.random.default_rng(seeds + skew), []
    for _ in range(studies):
        if skew:
            image, seed = 5 - 2 * rng.exponential(1, images) ** 2, rng.exponential(1, seeds) - 1
        else:
            image, seed = rng.normal(4, 1.8, images), rng.normal(0, 1, seeds)
        logit = image + 0.15 * seed[:, None] + rng.normal(0, 0.5, (seeds, images))
        right = rng.random((seeds, images)) < 1 / (1 + np.exp(-logit))
        exact = precision(right)
        found.append((exact.mean, *exact.both))
    mean, low, high = np.array(found).T
    truth = mean.mean()  # over 2,000 studies, far more exact than any of them
    return float(((low < truth) & (truth < high)).mean())


def crossed_runs(rng: np.random.Generator, blocks: int, variances: dict[str, float]) -> Floats:
    """Returns (blocks, 2, 2, 2, 2 images) of runs whose sources have these variances; s, w and o
    are split, weights and order."""
    runs = np.zeros((blocks, 2, 2, 2))
    for name, variance in variances.items():
        shape = (blocks, *(2 if source in name else 1 for source in "swo"))
        runs = runs + rng.normal(0, variance**0.5, shape)
    return np.repeat(runs[..., None], 2, axis=-1)


def share_within(blocks: int, variances: dict[str, float], studies: int = 1_000) -> float:
    """Returns how often the split's share, truly 1/3, is within 12 points."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(studies):
        share = crossed(crossed_runs(rng, blocks, variances)).components[0].share
        hits += abs(share - 1 / 3) <= 0.12
    return hits / studies


def share_within_six(studies: int = 10_000) -> float:
    """Returns the same for one block of 6 × 6 × 6 runs whose sources act by themselves: each
    variance is estimated from six draws."""
    drawn = np.random.default_rng(0).chisquare(5, (studies, 3))
    return float((np.abs(drawn[:, 0] / drawn.sum(axis=1) - 1 / 3) <= 0.12).mean())


# --- time --------------------------------------------------------------------------------------


def extra_time() -> float:
    """Returns the share of a training's time that it takes to find, pack and store the bits of a
    stack of five 784-32-32-10 networks, on images as many as MNIST's; one thread."""
    import torch

    from hpo.study.config import Config, Seeds
    from hpo.study.metrics import packed
    from hpo.training.train import Examples, Split, evaluate, train

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
    thirds = {"s": 1.0, "w": 1.0, "o": 1.0}
    alone = {"s": 1.0, "swo": 2.0}
    found = verdict_rows()
    for k in (3, 5, 10):
        lead = (
            f"{percent(false_lead(k))} (paired t intervals: {percent(false_lead_uncorrected(k))})"
        )
        found.append((f"False lead among k = {k} equal finalists, 5 seeds", "≤ 5%", lead))
    for skew in (False, True):
        kind = "skewed" if skew else "normal"
        both = [percent(coverage(skew, seeds)) for seeds in (5, 10)]
        text = f"Coverage of 95% intervals over seeds and images, {kind}, 5 and 10 seeds"
        found.append((text, "93 to 97%", " and ".join(both)))
    found += [
        ("A share of 33% within ± 12 points, 48 blocks, sources by themselves", "95%",
         percent(share_within(48, thirds))),
        ("The same, the other 67% from all three together", "95%",
         percent(share_within(48, alone))),
        ("The same with one block of 6 × 6 × 6, sources by themselves (for comparison)", "–",
         percent(share_within_six())),
    ]  # fmt: skip
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
        f"Simulations by `python tests/benchmarks/validity.py`: {STUDIES:,} studies a row, 1,000 "
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
    ]
    OUT.write_text("\n".join(text) + "\n", encoding="utf-8")
    print(OUT.read_text(encoding="utf-8"), f"{time.time() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
