"""A search's report, section by section."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from hpo.analysis import importance
from hpo.language import marked, nt, t
from hpo.report import search_tables as tables
from hpo.report.blocks.page import Block, Code, Picture, Section
from hpo.report.blocks.run_facts import one_line_each, other_data, repeatable, run_table, trained_in
from hpo.report.figures import search as figures
from hpo.report.figures.axis import Parameter
from hpo.report.figures.contour import contour
from hpo.report.figures.slices import Slice, slices
from hpo.report.figures.trial import TrialCurve, trial_curves
from hpo.report.finalists import finalists_section, mistakes_sections
from hpo.results import trial as record
from hpo.results.study import StoredSearch, seconds_of
from hpo.study.file import OBJECTIVES
from hpo.study.names import PRUNERS, SAMPLERS, label
from hpo.study.space import Fixed, Range, spelled
from hpo.text import limit_text, listed, seconds_text


def lead(study: StoredSearch) -> list[str]:
    file = study.file
    parts = (
        [f"{tables.winner_sentence(study)} {tables.other_search_sentence(study)}"]
        if study.tested
        else []
    )
    text = marked(
        "{n} networks tried on {data} ({states}), chosen by {sampler}, with {pruner}: {time}."
    )
    chosen = {"sampler": label(SAMPLERS, file.sampler), "pruner": label(PRUNERS, file.pruner)}
    known = {"data": study.data_name, "states": tables.states_text(study) or t("none begun")}
    known |= {name: t(choice) for name, choice in chosen.items()}
    parts.append(t(text, n=len(study.ended), time=trained_in(study), **known))
    parts += [t(" ".join(file.text.split()))] if file.text else []
    parts += [sentence] if (sentence := tables.unfinished(study)) else []
    return one_line_each([*parts, *other_data(study)])


def sections(study: StoredSearch, *, saved: bool) -> list[Section]:
    """Returns the report's sections. saved: whether the winner is in best/ beside the report."""
    first = [finalists_section(study, saved)]
    if study.repeats and study.winner:
        table = tables.repeats_table(study)
        first.append(Section(title=t("The same search again"), blocks=[table]))
    first += [*_trade_off(study), _course(study), _best(study), _importance(study)]
    return [*first, *mistakes_sections(study), _protocol(study), _run(study)]


def _trade_off(study: StoredSearch) -> list[Section]:
    """Returns the section on the Pareto front of a search with two objectives."""
    rows = study.ranked
    if not study.second or rows.empty:
        return []
    second = t(OBJECTIVES[study.second])
    accuracies = (100 * rows["valid_accuracy"]).to_list()
    costs = [study.frozen[int(n)].values[1] for n in rows["number"]]
    draw = partial(
        figures.pareto,
        numbers=rows["number"].to_list(),
        accuracies=accuracies,
        costs=costs,
        front=record.front(list(zip(accuracies, costs, strict=True))),
        finalists=[finalist.number for finalist in study.finalists],
        name=second,
    )
    caption = marked(
        "Each trial that ran to its end. Line: the Pareto front, the trials that no other one "
        "beats in both. Rings: finalists, spread over the front. {data}."
    )
    picture = Picture(
        file="pareto.svg",
        draw=draw,
        alt=t("Validation accuracy of each trial over its {second}.", second=second),
        caption=t(caption, data=study.data_name),
    )
    choice = t(
        "The winner is the finalist with the best mean validation accuracy over fresh seeds. A "
        "smaller one may be the better choice: the finalists' table has both figures."
    )
    blocks: list[Block] = [picture, choice]
    if (rows["valid_accuracy"] < study.fails_below).any():
        text = marked("Trials below {share:.1f}% have learned nothing and do not become finalists.")
        blocks.append(t(text, share=100 * study.fails_below))
    title = t("Accuracy against {second}", second=second.partition(" (")[0])
    return [Section(title=title, blocks=blocks)]


# --- how it went -------------------------------------------------------------------------------


def _course(study: StoredSearch) -> Section:
    blocks: list[Block] = []
    if np.isfinite(tables.selected_values(study.ended)).any():
        sampler = t(label(SAMPLERS, study.file.sampler))
        runs = [_progress(study, t("this search ({sampler})", sampler=sampler))]
        if study.random is not None and len(study.random.ended):
            name = t("random search ({name})", name=study.random.name)
            runs.append(_progress(study.random, name))
        blocks.append(
            Picture(
                file="progress.svg",
                draw=partial(figures.progress, runs),
                alt=t("Best validation accuracy so far, over trials and over time."),
                caption=t(
                    "The best validation accuracy so far, over trials that ended and over the time "
                    "of running. {data}.",
                    data=study.data_name,
                ),
            )
        )
    caption = marked("Seconds of a core: training and validation, one core a trial. {data}.")
    caption = t(caption, data=study.data_name)
    blocks.append(tables.states_table(study, caption))
    if len(study.ranked):
        blocks.append(_curves(study))
    return Section(title=t("How the search went"), blocks=blocks)


def _progress(study: StoredSearch, label: str) -> figures.Run:
    rows = study.ended
    return figures.Run(
        label=label,
        values=tables.selected_values(rows),
        seconds=tables.run_seconds(study, rows),
        numbers=rows["number"].to_list(),
        limited=bool(tables.over_limit(rows).any()),
    )


def _curves(study: StoredSearch) -> Picture:
    best = study.ranked.head(tables.BEST)
    pruned = study.trials[(study.trials["state"] == "PRUNED") & ~study.trials["diverged"]]
    limited = bool(tables.over_limit(pruned).any())
    alt = marked("Validation accuracy by epoch of the best trials.")
    caption = marked("Validation accuracy of the {best} best trials. {data}.")
    if limited:
        alt = marked("Validation accuracy by epoch of the best trials, and of those stopped early.")
        caption = marked(
            "Validation accuracy of the {best} best trials, and of the {stopped} stopped early up "
            "to where they ended. {data}."
        )
    elif len(pruned):
        alt = marked("Validation accuracy by epoch of the best trials, and of the pruned ones.")
        caption = marked(
            "Validation accuracy of the {best} best trials, and of the {pruned} pruned ones up to "
            "where they ended. {data}."
        )
    counts = {"best": len(best), "pruned": len(pruned), "stopped": len(pruned)}
    curves = ([_curve(study, int(number)) for number in part["number"]] for part in (best, pruned))
    return Picture(
        file="curves.svg",
        draw=partial(trial_curves, *curves, limited=limited),
        alt=t(alt),
        caption=t(caption, **counts, data=study.data_name),
    )


def _curve(study: StoredSearch, number: int) -> TrialCurve:
    rows = study.curves[study.curves["number"] == number]
    label = f"#{number}: {study.config(number).brief}"
    return TrialCurve(label=label, values=(100 * rows["valid_accuracy"]).to_list())


def _best(study: StoredSearch) -> Section:
    blocks: list[Block] = []
    if study.ranked.empty:
        blocks.append(t("No trial has been trained to its end yet."))
    else:
        caption = marked("One training each, on {data}, all with the same split and seed.")
        table = tables.best_table(study, caption=t(caption, data=study.data_name))
        blocks.append(table.but("network"))
        if study.tested is None:
            best = study.config(int(study.ranked.iloc[0]["number"]))
            blocks.append(tables.at_bounds(study, best))
    return Section(title=t("The best trials"), blocks=blocks)


# --- what mattered -----------------------------------------------------------------------------


def _importance(study: StoredSearch) -> Section:
    title = t("Which hyperparameters mattered")
    importances = importance.evaluate(study.frozen, log_scale=True)
    if importances is None:
        text = t("Too few trials have been trained to their end to tell.")
        return Section(title=title, blocks=[text])
    evaluators = listed([each.evaluator for each in importances.evaluations])
    bars = {
        name: {
            each.evaluator: (100 * share.share, 100 * share.low, 100 * share.high)
            for each in importances.evaluations
            if (share := each.shares.get(name))
        }
        for name in importance.ranked(importances)
    }
    alt = marked("Importance of each hyperparameter by {evaluators}, with 95% intervals.")
    caption = marked("Share of importance by {evaluators}; too few trials for an interval. {data}.")
    if all(each.resamples for each in importances.evaluations):
        caption = marked(
            "Share of importance by {evaluators}; whiskers: 95% of bootstrap resamples of the "
            "trials. {data}."
        )
    blocks: list[Block] = [
        Picture(
            file="importance.svg",
            draw=partial(figures.importance, bars),
            alt=t(alt, evaluators=evaluators),
            caption=t(caption, evaluators=evaluators, data=study.data_name),
        ),
        list(importances.notes),
    ]
    return Section(title=title, blocks=[*blocks, *_effects(study, importances)])


def _effects(study: StoredSearch, importances: importance.Importances) -> Iterator[Block]:
    rows = study.ended
    numbers, accuracies = rows["number"].to_list(), 100 * rows["valid_accuracy"]
    states = (
        rows["state"].mask(tables.over_limit(rows), "LIMITED").mask(rows["diverged"], "DIVERGED")
    )
    known = {"accuracies": accuracies.to_list(), "states": list(states), "numbers": numbers}
    names = importance.ranked(importances)
    panels = [Slice(parameter=_parameter(study, name), **known) for name in names]
    yield Picture(
        file="slices.svg",
        draw=partial(slices, panels),
        alt=t("Validation accuracy of every trial against each of its hyperparameters."),
        caption=t(
            "Every trial against each hyperparameter. Points are dense where the sampler preferred "
            "a region. {data}.",
            data=study.data_name,
        ),
    )
    pair = importance.most_important_pair(importances)
    if pair:
        x, y = (_parameter(study, name) for name in pair)
        caption = marked(
            "Validation accuracy of the trials that ran to their end, over {a} and {b}. {data}."
        )
        complete = accuracies.where(states == "COMPLETE").to_list()  # NaN for all others
        yield Picture(
            file="contour.svg",
            draw=partial(contour, x, y, complete, numbers),
            alt=t("Validation accuracy over {a} and {b}.", a=pair[0], b=pair[1]),
            caption=t(caption, a=pair[0], b=pair[1], data=study.data_name),
        )


def _parameter(study: StoredSearch, name: str) -> Parameter:
    domain = study.file.space[name]
    log = isinstance(domain, Range) and domain.log
    return Parameter(name=name, values=study.ended[name].to_list(), log=log)


# --- how ---------------------------------------------------------------------------------------


def _protocol(study: StoredSearch) -> Section:
    data, file = study.data, study.file
    space = [f"{name}: {spelled(domain)}" for name, domain in file.space.items()]
    shared = t("all trials share split, seed and batch order")
    if file.seeds_per_trial > 1:
        shared = t("all trials share splits, seeds and batch orders")
    text = marked(
        "Each trial trains one network on {train:,} {things} of {data} and is judged by its "
        "accuracy on {valid:,} others after its last epoch; {shared}. The search chooses {free} "
        "hyperparameters. A trial that diverges (a loss that is not finite, or a hundred times "
        "that of a guess) ends at once, as the worst. No configuration is trained twice."
    )
    free = sum(not isinstance(domain, Fixed) for domain in file.space.values())
    known = {part: data[part] for part in ("train", "valid", "test")}
    known |= {"data": study.data_name, "things": t(study.things)}
    text = t(text, shared=shared, free=free, **known)
    fresh = marked(
        "Their validation names the winner; the {test:,} test {things} are used once for each "
        "finalist and seed, for the figures above and for no choice."
    )
    again = marked(
        "The {n} best are trained again on {seeds} fresh seeds, each with its own split, initial "
        "weights and batch order."
    )
    if study.second:
        again = marked(
            "The {n} along the front are trained again on {seeds} fresh seeds, each with its own "
            "split, initial weights and batch order."
        )
    finalists = t(again, n=file.finalists, seeds=file.finalist_seeds)
    blocks: list[Block] = [text, *_also(study), space, f"{finalists} {t(fresh, **known)}"]
    return Section(title=t("How it was searched"), blocks=blocks)


def _also(study: StoredSearch) -> list[str]:
    """Returns sentences on seeds per trial, limits, and where the search began."""
    file, sentences = study.file, []
    if file.seeds_per_trial > 1:
        text = marked(
            "A trial's value is the mean over {n} seeds, each with its own split, initial weights "
            "and batch order; finalists get others."
        )
        sentences.append(t(text, n=file.seeds_per_trial))
    if file.trial_limit:
        sentences.append(t("A trial may take {time}.", time=limit_text(file.trial_limit)))
    if file.first:
        sentences.append(
            nt(
                "{n} configuration of the study file came first.",
                "{n} configurations of the study file came first.",
                len(file.first),
            )
        )
    if study.like:
        text = marked(
            "The sampler knew {known} of {of} finished trials of study {study} from the start: "
            "those that lie in this space. The best of them was trained here as well."
        )
        sentences.append(t(text, known=study.like["trials"], **study.like))
    return [" ".join(sentences)] if sentences else []


def _run(study: StoredSearch) -> Section:
    blocks: list[Block] = [run_table(study)]
    if study.tested is not None:
        seconds = seconds_of(study.tested.sessions)
        blocks.append(t("The finalists took {time} more.", time=seconds_text(seconds)))
    if study.sessions:
        blocks += [t("To go on from here, or to run it elsewhere:")]
        blocks += [Code(text=repeatable(study.sessions[-1]["command"]))]
    return Section(title=t("How it was run"), blocks=blocks)
