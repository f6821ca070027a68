"""What stands in a report: its first sentences, and its sections in their order."""

from collections.abc import Callable, Sequence

from hpo.language import marked, nt, t
from hpo.report.blocks import search_tables as tables
from hpo.report.blocks.page import Block, Section
from hpo.report.blocks.words import guess_text
from hpo.report.sections import (
    accuracy,
    causes,
    claims,
    course,
    finalists,
    glance,
    importance,
    interactions,
    noise,
    protocol,
    trials,
)
from hpo.report.sections.protocol import one_line_each, other_data, trained_in
from hpo.results.study import StoredGrid, StoredSearch, StoredStudy
from hpo.study.names import PRUNERS, SAMPLERS, label
from hpo.text import count

Stored = StoredGrid | StoredSearch
# To which kind of study a section applies, and what builds it: no section where there is nothing
# to say.
SECTIONS: Sequence[tuple[type[StoredStudy], Callable[..., list[Section]]]] = (
    (StoredGrid, claims.sections),
    (StoredGrid, noise.sections),
    (StoredGrid, interactions.sections),
    (StoredGrid, glance.sections),
    (StoredGrid, accuracy.sections),
    (StoredGrid, noise.predictions),
    (StoredGrid, importance.differences),
    (StoredGrid, protocol.of_grid),
    (StoredGrid, course.experiments),
    (StoredGrid, causes.sections),
    (StoredGrid, protocol.unsaid),
    (StoredGrid, claims.method_sections),
    (StoredGrid, protocol.run_of_grid),
    (StoredSearch, finalists.sections),
    (StoredSearch, finalists.repeats),
    (StoredSearch, trials.trade_off),
    (StoredSearch, course.sections),
    (StoredSearch, trials.sections),
    (StoredSearch, importance.sections),
    (StoredSearch, finalists.mistakes),
    (StoredSearch, protocol.of_search),
    (StoredSearch, protocol.run_of_search),
)


def sections(study: Stored, *, saved: bool = False) -> list[Section]:
    """Returns the report's sections. saved: whether the winner is in best/ beside the report."""
    found = _front(study, saved)
    for kind, build in SECTIONS:
        if isinstance(study, kind):
            found += build(study, saved) if build is finalists.sections else build(study)
    return found


def _front(study: Stored, saved: bool) -> list[Section]:
    """Returns what stands before the first heading: a picture, and the card with the answer."""
    found: list[Block | None]
    if isinstance(study, StoredGrid):
        found = [glance.picture(study), glance.card(study)]
    else:
        found = [course.progress_picture(study), finalists.card(study, saved)]
    blocks = [block for block in found if block is not None]
    return [Section(title="", blocks=blocks)] if blocks else []


def lead(study: Stored) -> list[str]:
    """Returns the report's first sentences, a paragraph each."""
    parts = _of_search(study) if isinstance(study, StoredSearch) else _of_grid(study)
    return one_line_each([*parts, *other_data(study)])


def _of_grid(study: StoredGrid) -> list[str]:
    file = study.file
    counts = [len(study.of(cell)) for cell in file.cells]
    low, high = min(counts), max(counts)
    seeds = nt("{n} seed each", "{n} seeds each", high)
    if low < high:
        seeds = nt("{low} to {n} seed each", "{low} to {n} seeds each", high, low=low)
    guess = guess_text(study)  # in the first sentence
    parts = claims.lead(study, guess)
    parts += noise.lead(study, "" if parts else guess)
    parts = parts or glance.answer(study, guess)
    text = marked("{configurations}, {seeds}: {trainings} on {data}, {time}{guess}.")
    known = {"seeds": seeds, "data": study.data_name, "time": trained_in(study)}
    known["guess"] = "" if parts else guess
    known["configurations"] = count(len(file.cells), "configuration")
    lead = t(text, trainings=count(sum(counts), "training"), **known)
    planned = sum(max(study.seeds, count) for count in counts)
    parts += [lead, t(" ".join(file.text.split()))] if file.text else [lead]
    if sum(counts) < planned:
        text = marked("The study is not finished: {done} of {planned} trainings are done.")
        parts.append(t(text, done=sum(counts), planned=planned))
    return parts


def _of_search(study: StoredSearch) -> list[str]:
    file = study.file
    said = (tables.gain_sentence, tables.other_search_sentence)
    winner, more = tables.winner_sentence(study), " ".join(filter(None, (f(study) for f in said)))
    parts = [winner, *([more] if more else [])] if study.winner else []
    text = marked(
        "{networks} tried on {data} ({states}), chosen by {sampler}, with {pruner}: {time}{guess}."
    )
    chosen = {"sampler": label(SAMPLERS, file.sampler), "pruner": label(PRUNERS, file.pruner)}
    known = {"data": study.data_name, "states": tables.states_text(study) or t("none begun")}
    known |= {name: t(choice) for name, choice in chosen.items()}
    known |= {"time": trained_in(study), "guess": "" if parts else guess_text(study)}
    parts.append(t(text, networks=count(len(study.ended), "network"), **known))
    parts += [winner] if study.tested and not study.winner else []
    parts += [t(" ".join(file.text.split()))] if file.text else []
    parts += [sentence] if (sentence := tables.unfinished(study)) else []
    return parts
