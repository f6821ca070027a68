"""The finalists of a search, the winner, its mistakes, and the same search again."""

import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import tomli_w
from scipy.stats import binomtest

from hpo.analysis.compare import over_reference
from hpo.analysis.selection import lead, rivals
from hpo.analysis.statistics import Estimate, estimate
from hpo.data.card import examples_of
from hpo.data.schema import DIGITS
from hpo.language import marked, printed, t
from hpo.model import snippet
from hpo.model.folder import Description
from hpo.report.blocks import search_tables as tables
from hpo.report.blocks.grid_tables import recall_table
from hpo.report.blocks.page import Block, Card, Code, Picture, Section
from hpo.report.blocks.table import NOTHING, Column, Table
from hpo.report.blocks.words import spelled_estimate
from hpo.report.figures import confusion as figures
from hpo.report.sections.protocol import fixed_part
from hpo.report.sections.trials import at_bounds
from hpo.results.study import Finalist, StoredGrid, StoredSearch
from hpo.results.trial import NO_EPOCH
from hpo.study.metrics import BY_NAME, TEMPERATURES, capital
from hpo.text import count, limit_text, listed


def sections(study: StoredSearch, saved: bool) -> list[Section]:
    """Returns the section on the finalists. saved: whether the winner lies beside the report."""
    title = t("The finalists, and the winner among them")
    return [Section(title=title, blocks=_blocks(study, saved))]


def _blocks(study: StoredSearch, saved: bool) -> list[Block]:
    """Returns the finalists' table, its conclusions, and how to use the saved winner."""
    tested, winner = study.tested, study.winner
    if tested is None or tested.finished.empty:
        return [_no_finalist(study)]
    table = main_table(study)
    if winner is None:
        goes_on = t("The same command goes on from here.")
        return [table, f"{tables.winner_sentence(study)} {goes_on}"]
    recall = recall_table(tested)
    last: list[Block] = [
        t("The winner is not saved beside this report; the same command trains and saves it.")
    ]
    if saved:
        last = _saved_blocks(study, winner)
    conclusions = [*_verdicts(study, winner), *at_bounds(study, winner.config)]
    conclusions += _calibration(winner)
    return [table, conclusions, *([recall] if recall else []), *last]


def card(study: StoredSearch, saved: bool) -> Card | None:
    """Returns the winner's configuration and result, and where the files are; None without one."""
    winner, metric = study.winner, study.metric.tested
    if winner is None:
        return None
    found, guess = tables.fresh_estimate(winner, metric), metric.gain(metric.guess(study.data))
    rows = [(t("Winner"), winner.config.brief)]
    if extras := winner.config.extras(but=("batch_size", "epochs")):
        rows.append((t("Further"), extras))
    rows.append((capital(t(metric.words)), spelled_estimate(found, metric) if found else NOTHING))
    rows.append((t("A guess"), metric.spelled(guess)))
    gained, sought = over_reference(study), study.metric
    if gained and math.isfinite(gained.low + gained.high):
        ends = sorted(sought.sign * end + 0.0 for end in gained.interval)
        low, high = (printed(f"{{:+.{sought.digits}f}}", end) for end in ends)
        text = marked("{gain} (95% interval {low} to {high}) of {metric}")
        known = {"gain": sought.difference(sought.sign * gained.effect, "+"), "low": low}
        value = t(text, high=high, metric=t(sought.words), **known)
        rows.append((t("Minus the reference, on the seeds that chose the winner"), value))
    files = ["trials.csv", "curves.csv", "finalists.csv", "provenance.json"]
    files[3:3] = ["reference.csv"] * (study.reference is not None)
    links = [(t("The winner's network"), "best/config.toml")] if saved else []
    values = {key: value for key, value in winner.config.given().items() if value != ""}
    toml = tomli_w.dumps(values).strip()
    links += [(name, name) for name in files]
    return Card(rows=[(*row, ()) for row in rows], toml=toml, links=links)


def _no_finalist(study: StoredSearch) -> str:
    """Says why no finalist is trained."""
    limit, reasons = study.file.trial_limit, study.trials["fail_reason"].astype(object).fillna("")
    slow = tables.over_limit(study.trials) | reasons.str.startswith(NO_EPOCH)
    if limit and study.ranked.empty and slow.any():
        return t(
            "No trial ran to its end within its limit of {time}, so there is no finalist. Raise "
            "trial_limit in the study file and search again with --fresh, or go on with more "
            "--trials.",
            time=limit_text(limit),
        )
    if study.ranked.empty and study.trials["diverged"].sum() >= study.file.n_trials:
        return t(
            "Every trial diverged, so there is no finalist. Give smaller learning rates in the "
            "study file and search again with --fresh, or go on with more --trials."
        )
    return t("No finalist is trained on fresh seeds yet; the same command goes on from here.")


def _saved_blocks(study: StoredSearch, winner: Finalist) -> list[Block]:
    temperature = winner.temperature or 1.0
    about = Description(config=winner.config, schema=study.schema, temperature=temperature)
    trained = marked(
        "The winner was trained once more, on all training {things}, and lies in best/, beside "
        "this report."
    )
    sentences = [t(trained, things=t(study.things)), *_cut(winner), *_ensemble(study, winner)]
    trained = " ".join(sentences)
    if winner.config.model:
        return [trained, Code(text=snippet.own_snippet("best", about))]
    return [
        f"{trained} {_use(study)}",
        Code(text=f"hpo predict best {'IMAGE.png' if study.pictures else 'TABLE.csv'}"),
        t("It is a plain torch network; hpo reads the table:")
        if snippet.is_coded(study.schema)
        else t("It is a plain torch network, and needs no hpo:"),
        Code(text=snippet.snippet("best", about)),
    ]


def _cut(winner: Finalist) -> list[str]:
    """Says after which epoch the winner was stopped, if it was."""
    text = marked(
        "There it has no validation, so it was stopped after epoch {cut} of {epochs}, the median "
        "of the epochs that count on the fresh seeds, with the learning rates of all {epochs}."
    )
    return [t(text, cut=winner.cut, epochs=winner.config.epochs)] if winner.cut else []


def _ensemble(study: StoredSearch, winner: Finalist) -> list[str]:
    """Says what the saved ensemble gets in the test, if there is one of this winner."""
    found = study.ensemble or {}
    if found.get("trial") != winner.number or found["members"] != study.file.members:
        return []
    if study.regression:
        text = marked(
            "An ensemble is saved, too: {members} networks of the winner's configuration, each "
            "trained from another seed. The mean of their numbers has a test RMSE of {value} (one "
            "ensemble, so without an interval). hpo predict --ensemble uses it."
        )
        metric = BY_NAME["test_rmse"].of(study.schema.deviation)
        value = metric.spelled(metric.gain(found["test_rmse"]))
        return [t(text, members=found["members"], value=value)]
    rows, accuracy = study.data["test"], found["test_accuracy"]
    ends = binomtest(round(accuracy * rows), rows).proportion_ci(method="wilson")
    text = marked(
        "An ensemble is saved, too: {members} networks of the winner's configuration, each trained "
        "from another seed. The mean of their probabilities has a test accuracy of "
        "{accuracy:.2f}% (95% interval {low:.2f} to {high:.2f}, for other {things} and not for "
        "other seeds). hpo predict --ensemble uses it."
    )
    known = {"low": 100 * ends.low, "high": 100 * ends.high, "members": found["members"]}
    return [t(text, accuracy=100 * accuracy, things=t(study.things), **known)]


def _use(study: StoredSearch) -> str:
    """Says what `hpo predict` takes."""
    if study.regression:
        return t("There it predicts the number for each row:")
    if study.schema.levels:
        return t("There it classifies the rows of a table (CSV or Parquet):")
    if not study.pictures:
        return t("There it classifies the rows of a table (CSV, Parquet or .npz):")
    if study.classes != list(DIGITS):
        return t("There it classifies images:")
    return t("There it classifies images (a bright digit on black; --invert for dark on light):")


def main_table(study: StoredSearch) -> Table:
    """Returns a row per finalist: as selected, on fresh seeds, and on the test images."""
    caption = marked(
        "Data: {data}. As selected: the one validation that the search ranked by. "
        "Fresh seeds and test: mean (95% interval) over seeds that the search never saw, each with "
        "a split of its own; the intervals, and that of the lead below, are for other seeds and "
        "splits of these data, not for other {things} and not for another search. Selection bias: "
        "as selected minus fresh seeds."
    )
    if fixed_part(study):
        caption = marked(
            "Data: {data}. As selected: the one validation that the search ranked by. "
            "Fresh seeds and test: mean (95% interval) over seeds that the search never saw, all "
            "validated on the same {things}; the intervals, and that of the lead below, are for "
            "other seeds, not for other {things}, other splits or another search. Selection bias: "
            "as selected minus fresh seeds."
        )
    caption = t(caption, data=study.data_name, things=t(study.things))
    return tables.finalists_table(study, caption).but("finalist", "network")


def _verdicts(study: StoredSearch, winner: Finalist) -> list[str]:
    metric = study.metric
    fresh = tables.fresh_estimate(winner, metric)
    assert fresh is not None
    first = marked(
        "Trial {number} wins: its mean {metric} over fresh seeds is the best, {value}. The test "
        "had no part in the choice."
    )
    value = spelled_estimate(fresh, metric)
    first = t(first, number=winner.number, metric=t(metric.words), value=value)
    return [first, *_lead(study), *_bias_sentences(study)]


def _lead(study: StoredSearch) -> list[str]:
    """Says whether the winner really leads, and if not, which others may be the best as well."""
    frame = _common_seeds(study)
    if len(study.finalists) < 2:
        return []
    if len(frame) < 3:
        return [t("There are too few common seeds to tell whether it is really the best.")]
    gains, metric = frame.to_numpy(), study.metric
    found, names = lead(gains, metric.most), [frame.columns[i] for i in rivals(gains, metric.most)]
    low, high = (printed(f"{{:.{metric.digits}f}}", end) for end in (found.low, found.high))
    known: dict[str, Any] = {"lead": metric.difference(found.mean), "low": low, "high": high}
    known |= {"second": names[1], "n": found.n}
    if found.low > 0:
        text = marked(
            "Its lead over the second, trial {second}, is {lead}, more than the spread between "
            "seeds and splits (95% interval {low} to {high}, paired t-test, {n} seeds)."
        )
        return [t(text, **known)]
    text = marked(
        "Its lead over the second, trial {second}, is {lead} (95% interval {low} to {high}, "
        "paired t-test, {n} seeds), so these seeds do not decide whether it is the best. {names} "
        "may be the best as well."
    )
    others = listed([t("trial {number}", number=number) for number in names[1:]])
    return [t(text, names=others.capitalize(), **known)]


def _common_seeds(study: StoredSearch) -> pd.DataFrame:
    """Returns gains of the objective, a column per finalist by its trial's number, a row per seed
    that all have."""
    columns = {finalist.number: finalist.gains(study.metric) for finalist in study.finalists}
    return pd.DataFrame(columns).dropna()


def _bias_sentences(study: StoredSearch) -> list[str]:
    """Says by how much the selecting validation flatters the finalists, with an interval over the
    fresh seeds."""
    frame = _common_seeds(study)
    if frame.empty:
        return []
    metric = study.metric
    selected = np.mean([metric.gain(finalist.selected) for finalist in study.finalists])
    bias = estimate(float(selected) - frame.mean(axis=1).to_numpy())  # of gains
    ends = sorted((metric.sign * bias.low, metric.sign * bias.high))
    # 0.0 is added, or there would be a −0.00.
    rounded = (round(end, metric.digits) + 0.0 for end in ends)
    low, high = (printed(f"{{:+.{metric.digits}f}}", end) for end in rounded)
    interval = t(", 95% interval {low} to {high}", low=low, high=high)
    found = marked("Selection bias, mean over the finalists: {mean}{interval}")
    mean = metric.difference(metric.sign * bias.mean, "+")
    found = t(found, mean=mean, interval=interval if bias.n > 1 else "")
    return [t(_bias_text(study, bias), found=found), *_epoch_sentences(study)]


def _bias_text(study: StoredSearch, bias: Estimate) -> str:
    if not bias.resolved:
        return marked("{found}: no clear bias.")
    if fixed_part(study):
        harder = marked("{found}: the search's seeds were worse than most and hide the luck.")
        easier = marked("{found}: the best of many look too good.")
    elif study.file.seeds_per_trial == 1:
        harder = marked(
            "{found}: the search's one split was harder than most and hides the luck of choice."
        )
        easier = marked(
            "{found}: the best of many look too good, and the one split may be an easy one."
        )
    else:
        harder = marked(
            "{found}: the search's splits were harder than most and hide the luck of choice."
        )
        easier = marked("{found}: the best of many look too good, and the splits may be easy ones.")
    return harder if bias.mean < 0 else easier


def _epoch_sentences(study: StoredSearch) -> list[str]:
    """Says by how much the choice of the epoch flatters validation. Finalists choose it by their
    validation, too, so the difference between the search and the fresh seeds does not show it."""
    gains = [found for finalist in study.finalists if len(found := _epoch_gains(finalist))]
    if not gains:
        return []
    found, metric = estimate(pd.DataFrame(gains).mean().to_numpy()), study.metric
    low, high = (printed(f"{{:.{metric.digits}f}}", end) for end in (found.low, found.high))
    text = marked(
        'With keep = "best", each validation also chose its epoch, as selected and on the fresh '
        "seeds, so that difference leaves this optimism out. On the fresh seeds, validation is "
        "better by {mean} (95% interval {low} to {high}) than after the median epoch of the other "
        "seeds. The test is free of this choice."
    )
    return [t(text, mean=metric.difference(found.mean), low=low, high=high)]


def _calibration(winner: Finalist) -> list[str]:
    """Says by what the winner's logits are divided, and what that does to the calibration error of
    its networks on the fresh seeds; each has the temperature that the others' rows give."""
    losses, errors = winner.calibration["loss"], winner.calibration["error"]
    if not len(losses):
        return []
    text = marked(
        "The saved network's logits are divided by {temperature:.2f} for its probabilities: the "
        "temperature with the smallest cross entropy on the validation rows of {seeds}. The most "
        "probable class stays the same."
    )
    seeds = count(len(losses), "fresh seed")
    said = [t(text, temperature=winner.temperature, seeds=seeds)]
    if winner.search.file.members > 1:
        said.append(t("The ensemble (hpo predict --ensemble) does without it."))
    if len(losses) < 2:
        return said
    others = (losses.sum(axis=0) - losses).argmin(axis=1)  # of each seed
    after = errors[np.arange(len(errors)), others]
    before = errors[:, TEMPERATURES.index(1.0)]
    change, names = estimate(100 * (after - before)), ("before", "after")
    known = {name: 100 * each.mean() for name, each in zip(names, (before, after), strict=True)}
    text = marked(
        "Expected calibration error, mean over these seeds, each with the temperature that the "
        "others give: {before:.2f} points without it, {after:.2f} with it (difference "
        "{mean:+.2f}, 95% interval {low:+.2f} to {high:+.2f}). It has 15 bins of equal width (Guo "
        "et al., 2017), and is overestimated where rows are few; here they are {rows} a seed."
    )
    ends = {end: round(getattr(change, end), 2) + 0.0 for end in ("mean", "low", "high")}
    return [*said, t(text, rows=examples_of(winner.search.data, "valid"), **known, **ends)]


def _epoch_gains(finalist: Finalist) -> pd.Series:
    """Returns by seed the objective's gain in the kept epoch minus that after the median kept epoch
    of the other seeds; empty without others, and where the last epoch counts."""
    runs, metric = finalist.runs.set_index("seed"), finalist.search.metric
    if finalist.config.keep == "last" or len(runs) < 2:
        return pd.Series(dtype=float)
    assert finalist.search.tested
    curves = finalist.search.tested.curves.set_index("number")[metric.name]
    gains = {}
    for seed, run in runs.iterrows():
        others = math.ceil(runs["epoch"].drop(seed).median())
        curve = curves.loc[[run["number"]]].to_list()
        gains[seed] = metric.gain(run[metric.name] - curve[min(others, len(curve)) - 1])
    return pd.Series(gains)


def mistakes(study: StoredSearch) -> list[Section]:
    """Returns the winner's confusion matrix and worst images, or a regression's predictions; empty
    before there is a winner."""
    if study.tested is None or study.winner is None:
        return []
    if study.regression:
        return _predictions(study, study.tested, study.winner)
    mistakes = [
        trial.user_attrs["mistakes"]
        for trial in study.tested.frozen
        if trial.state.name == "COMPLETE" and trial.user_attrs["cell"] == study.winner.cell.name
        if "mistakes" in trial.user_attrs  # not without a test part
    ]
    if not mistakes:
        return []
    worst = _worst(study, [image for each in mistakes for image in each["worst"]])
    blocks: list[Block] = [_confusion(study, [each["confusion"] for each in mistakes])]
    if worst:
        caption = marked(
            "The test images that the winner's seeds are most wrong about: label, what it is taken "
            "for, and the probability left for the label. {data}."
        )
        picture = Picture(
            file="worst.svg",
            draw=partial(figures.worst_images, worst),
            alt=t("The test images that the winner is most wrong about."),
            caption=t(caption, data=study.data_name),
        )
        blocks.append(picture)
    return [Section(title=t("What the winner mistakes"), blocks=blocks)]


def _predictions(study: StoredSearch, tested: StoredGrid, winner: Finalist) -> list[Section]:
    """Returns what the winner predicts for test rows, and how far it is off."""
    found = [
        trial.user_attrs["predictions"]
        for trial in tested.frozen
        if trial.state.name == "COMPLETE"
        and trial.user_attrs["cell"] == winner.cell.name
        and "predictions" in trial.user_attrs
    ]
    if not found:
        return []
    target = np.array(found[0]["target"])
    answers = np.mean([each["answer"] for each in found], axis=0)
    caption = marked(
        "Left: what the winner predicts for {n} test {things}, mean over {seeds}, and the "
        "number in the data; on the line both are equal. Right: prediction minus data, over the "
        "prediction. {data}."
    )
    named = {"n": len(target), "things": t(study.things), "seeds": count(len(found), "seed")}
    picture = Picture(
        file="predictions.svg",
        draw=partial(figures.predictions, target, answers, study.schema.label),
        alt=t("Predicted against true numbers of the test {things}.", things=t(study.things)),
        caption=t(caption, data=study.data_name, **named),
    )
    return [Section(title=t("How far the winner is off"), blocks=[picture])]


def _confusion(study: StoredSearch, matrices: Sequence[Sequence[Sequence[float]]]) -> Picture:
    n, named = len(matrices), {"things": t(study.things), "data": study.data_name}
    caption = marked(
        "Test {things} of each class and what the winner takes them for, {over}. {data}."
    )
    over = t("mean over {n} seeds", n=n) if n > 1 else t("one seed")
    mean = np.mean(matrices, axis=0).tolist()
    return Picture(
        file="confusion.svg",
        draw=partial(figures.confusion, mean, study.classes, named["things"]),
        alt=t("Confusion matrix of the winner on the test {things}.", **named),
        caption=t(caption, over=over, **named),
    )


def _worst(
    study: StoredSearch, images: Sequence[dict[str, Any]], most: int = 16
) -> list[figures.WorstImage]:
    """Returns the images that most seeds have among their worst, the least probable label first."""
    by_image: dict[int, list[dict[str, Any]]] = {}
    for image in images:
        if image["pixels"]:
            by_image.setdefault(image["image"], []).append(image)
    found = [(-len(those), _worst_image(study, those)) for those in by_image.values()]
    found.sort(key=lambda each: (each[0], each[1].probability))
    return [image for _, image in found[:most]]


def _worst_image(study: StoredSearch, images: Sequence[dict[str, Any]]) -> figures.WorstImage:
    predicted = Counter(image["predicted"] for image in images).most_common(1)[0][0]
    return figures.WorstImage(
        label=study.classes[images[0]["label"]],
        predicted=study.classes[predicted],
        probability=float(np.mean([image["probability"] for image in images])),
        pixels=study.picture(images[0]["pixels"]),
    )


def repeats(study: StoredSearch) -> list[Section]:
    """Returns the section on searches that differ only in the sampler's seed, if there are some."""
    if not study.repeats or not study.winner:
        return []
    return [Section(title=t("The same search again"), blocks=[_repeats_table(study)])]


def _repeats_table(study: StoredSearch) -> Table:
    """Returns a row per repeated search, this one first."""
    rows = study.winners
    columns = [
        Column("search", t("Search"), lambda row: row.search.name),
        Column("trial", t("Winning trial"), lambda row: row.number),
        *tables.network_columns(study, rows, lambda row: row.config),
        tables.metric_column(
            "fresh", study.metric, t("{metric}, fresh seeds", metric=study.metric.header)
        ),
        *(tables.metric_column(each.name, each) for each in tables.test_metrics(study)),
        Column("trials", t("Trials"), lambda row: len(row.search.ended)),
    ]
    caption = marked(
        "Data: {data}. The same search with other sampler seeds; each winner trained on the same "
        "fresh seeds: mean (95% interval over seeds)."
    )
    return Table(columns=columns, rows=rows, caption=t(caption, data=study.data_name))
