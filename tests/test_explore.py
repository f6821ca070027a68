"""All trials on a search's page: filtered, sorted, brushed, pinned and downloaded in a browser."""

import dataclasses
import json
import time
from copy import copy
from pathlib import Path

import numpy as np
import pytest
from conftest import Ended
from optuna.trial import TrialState
from test_browser import Watched, browser, watched  # noqa: F401
from test_dashboard import address

from hpo.report import write as report
from hpo.report.sections import trials
from hpo.results import load
from hpo.results.study import StoredSearch
from hpo.storage.open import open_storage
from hpo.watch import dashboard

MANY = 2_000


def enlarged(search: StoredSearch, count: int) -> StoredSearch:
    """The search as if it had so many trials: its own again and again, with other learning rates
    and values."""
    rng, frozen = np.random.default_rng(0), []
    for number in range(count):
        trial = copy(search.frozen[number % len(search.frozen)])
        trial.number = number
        if number >= len(search.frozen):
            shift = float(rng.normal(0, 0.01))
            trial.params = {**trial.params, "lr": float(10 ** rng.uniform(-3, 0))}
            curve = trial.user_attrs.get("curve")
            if curve:
                better = [None if v is None else v + shift for v in curve["valid_accuracy"]]
                trial.user_attrs = {
                    **trial.user_attrs,
                    "curve": {**curve, "valid_accuracy": better},
                }
                if trial.values:
                    trial.values = [better[-1], *trial.values[1:]]
            if number == 40:  # diverged in its first epoch
                empty = {name: [None] for name in trial.user_attrs["curve"]}
                trial.user_attrs = {**trial.user_attrs, "diverged": 1, "curve": empty}
                trial.state, trial.values = TrialState.PRUNED, None
        frozen.append(trial)
    objective = search.file.objective
    return dataclasses.replace(
        search,
        frozen=frozen,
        trials=load._trials_frame(frozen, [objective], search.file.space),
        curves=load._curves_frame(frozen, [objective]),
        n_trials=count,
    )


@pytest.fixture(scope="module")
def many(ended_search: Ended) -> StoredSearch:
    search = load.load_study(open_storage(f"sqlite:///{ended_search.folder}/hpo.db"), "tiny")
    assert isinstance(search, StoredSearch)
    return enlarged(search, MANY)


@pytest.fixture(scope="module")
def page_of_many(many: StoredSearch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, began = tmp_path_factory.mktemp("many"), time.monotonic()
    page = report.write(many, folder / "tiny")
    assert time.monotonic() - began < 60
    return page


@pytest.fixture
def page(watched: Watched, page_of_many: Path):  # noqa: F811
    watched.page.goto(page_of_many.as_uri())
    yield watched.page
    assert watched.complaints == []


def shown(page) -> list[list[str]]:
    rows = page.locator("#explorer .rows tbody tr[data-trial]")
    return [row.locator("td").all_inner_texts() for row in rows.all()]


def test_the_page_holds_all_trials_and_stays_small(many: StoredSearch, page_of_many: Path):
    block = trials.every_trial(many)
    found = json.loads(block.json)
    keys = [column["key"] for column in found["columns"]]
    assert len(found["rows"]) == MANY
    assert f"{MANY:,} trials" in block.text
    frame = many.trials
    for place in (0, 17, MANY - 1):
        row = dict(zip(keys, found["rows"][place], strict=True))
        truth = frame.iloc[place]
        assert row["number"] == truth["number"]
        assert row["lr"] == pytest.approx(truth["lr"], rel=1e-3)
        if not truth["diverged"] and truth["valid_accuracy"] == truth["valid_accuracy"]:
            assert row["valid_accuracy"] == pytest.approx(100 * truth["valid_accuracy"], abs=0.006)
    assert page_of_many.stat().st_size < 3_000_000
    reference = dict(zip(keys, found["reference"], strict=True))
    assert (reference["optimizer"], reference["lr"], reference["number"]) == ("adam", 1e-3, None)
    gains = many.tested.gains(many.reference, many.metric)
    assert reference["valid_accuracy"] == pytest.approx(gains.mean())
    assert f"Dashed: reference, mean of {len(gains)} fresh seeds" in found["words"]["brush"]


def test_trials_are_filtered_and_only_those_in_sight_are_in_the_page(page):
    rows = page.locator("#explorer .rows tbody tr[data-trial]")
    assert 5 < rows.count() < 60
    counter = page.locator("#explorer .count")
    assert counter.inner_text() == f"{MANY:,} of {MANY:,} trials"
    page.locator("#explorer .filter").fill("lr<0.01 optimizer=adam relu")
    count = int(counter.inner_text().split(" of ")[0].replace(",", ""))
    assert 0 < count < MANY
    header = page.locator("#explorer .rows thead th").all_inner_texts()
    place = {name.split()[0]: number for number, name in enumerate(header)}
    for row in shown(page):
        assert float(row[place["lr"]]) < 0.01
        assert (row[place["optimizer"]], row[place["activation"]]) == ("Adam", "ReLU")
    for words in ("optimizer=Adam", "optimizer=adam"):  # as shown, and as in a study file
        page.locator("#explorer .filter").fill(words)
        assert {row[place["optimizer"]] for row in shown(page)} == {"Adam"}
    page.locator("#explorer .filter").fill("")
    values = [row[place["Validation"]] for row in shown(page)]
    assert values == sorted(values, key=float, reverse=True), "the best first, none that diverged"
    page.locator("#explorer .filter").fill("nothing<3")
    assert "no column nothing; known: number, state" in counter.inner_text()


def test_a_header_sorts_and_scrolling_goes_on(page):
    header = page.locator("#explorer .rows thead th", has_text="lr")
    header.get_by_role("button").click()
    places = page.locator("#explorer .rows thead th").all_inner_texts()
    place = next(number for number, name in enumerate(places) if name.startswith("lr"))
    first = [float(row[place]) for row in shown(page)]
    assert first == sorted(first)
    page.locator("#explorer .rows").evaluate("each => each.scrollTop = each.scrollHeight")
    page.wait_for_timeout(100)
    last = [float(row[place]) for row in shown(page)]
    assert last == sorted(last)
    assert last[0] > first[-1]


def test_a_brush_keeps_a_range_of_an_axis(page):
    canvas = page.locator("#explorer canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    right = box["x"] + box["width"] - 46  # the last axis, the objective's
    page.mouse.move(right, box["y"] + 36)
    page.mouse.down()
    page.mouse.move(right, box["y"] + 100)
    page.mouse.up()
    counter = page.locator("#explorer .count")
    count = int(counter.inner_text().split(" of ")[0].replace(",", ""))
    assert 0 < count < MANY
    page.mouse.click(right, box["y"] + 150)
    assert counter.inner_text() == f"{MANY:,} of {MANY:,} trials"


def test_axes_keep_room_for_their_labels_on_a_phone(page, many):
    page.set_viewport_size({"width": 390, "height": 800})
    canvas = page.locator("#explorer canvas")
    axes = sum(column["axis"] for column in json.loads(trials.every_trial(many).json)["columns"])
    assert canvas.bounding_box()["width"] >= 76 * axes
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_two_pinned_trials_are_compared_and_marked_in_the_figures(page):
    rows = page.locator("#explorer .rows tbody tr[data-trial]")
    numbers = [rows.nth(place).get_attribute("data-trial") for place in (0, 3, 5)]
    for number in numbers:  # the third one takes the place of the first
        page.locator(f"#explorer tr[data-trial='{number}']").click()
    pins = page.locator("#explorer .pins")
    lines = pins.locator("tr")
    assert lines.first.locator("td").all_inner_texts() == numbers[1:]
    assert pins.locator("tr.differs").count() >= 1
    assert pins.locator("svg.spark").count() == 2
    marked = page.locator(".picture svg .pinned")
    titles = marked.locator("title").all_text_contents()
    assert all(title.startswith((f"#{numbers[1]}", f"#{numbers[2]}")) for title in titles)
    pins.get_by_role("button").click()
    assert page.locator("#explorer tr.pinned").count() == 0
    row = rows.nth(1)
    row.focus()
    row.press("Enter")
    assert page.locator("#explorer tr.pinned").count() == 1


def test_trials_link_to_the_dashboard_only_while_a_reader_says_that_it_is_served(page, many):
    links = page.locator("#explorer a")
    assert links.count() == 0
    check = page.get_by_label("while hpo dashboard serves {}:{}".format(*dashboard.DASHBOARD))
    check.check()
    row = page.locator("#explorer .rows tbody tr[data-trial]").nth(2)
    number = row.get_attribute("data-trial")
    row.locator("td").nth(2).click()
    address = f"http://127.0.0.1:8080/dashboard/studies/{many.id}/trials?numbers={number}"
    for place in (row, page.locator("#explorer .pins tr").first):
        assert place.get_by_role("link").get_attribute("href") == address
        assert place.get_by_role("link").inner_text() == number
    check.uncheck()
    assert links.count() == 0


@pytest.mark.slow
def test_a_link_leads_to_the_trials_page(watched, ended_search: Ended, hpo_process):  # noqa: F811
    search = load.load_study(open_storage(f"sqlite:///{ended_search.folder}/hpo.db"), "tiny")
    block = json.loads(trials.every_trial(search).json)
    storage = f"sqlite:///{ended_search.folder}/hpo.db"
    process = hpo_process("dashboard", "--port", "0", "--storage", storage)
    link = block["dashboard"].replace("http://127.0.0.1:8080", address(process))
    watched.page.goto(f"{link}3")
    watched.page.get_by_role("heading", name="Trial 3 (trial_id=").wait_for()


def test_a_mark_in_a_figure_pins_its_trial(watched, many, tmp_path: Path):  # noqa: F811
    page = watched.page
    page.goto(report.write(enlarged(many, 40), tmp_path / "tiny").as_uri())
    mark = page.locator(".picture svg :has(> title)").filter(has_text="#").first
    number = mark.locator("title").first.text_content().split(":")[0].removeprefix("#")
    mark.dispatch_event("click")
    assert page.locator("#explorer .pins tr").first.locator("td").all_inner_texts() == [number]
    assert page.locator(".picture svg .pinned").count() >= 1
    assert watched.complaints == []


def test_what_is_kept_is_downloaded(page, tmp_path: Path):
    page.locator("#explorer .filter").fill("optimizer=sgd")
    with page.expect_download() as caught:
        page.locator("#explorer .bar button").click()
    caught.value.save_as(tmp_path / "trials.csv")
    header, *lines = (tmp_path / "trials.csv").read_text().splitlines()
    place = header.split(",").index("optimizer")
    assert {line.split(",")[place] for line in lines} == {"sgd"}
    counter = page.locator("#explorer .count").inner_text()
    assert len(lines) == int(counter.split(" of ")[0].replace(",", ""))


@pytest.mark.parametrize("kind", ["SVG", "PNG", "TXT"])
def test_a_figure_is_downloaded(kind: str, page, tmp_path: Path):
    figure = page.locator("figure[data-file='progress.svg']")
    with page.expect_download() as caught:
        figure.get_by_role("button", name=f": {kind}").click()
    path = tmp_path / caught.value.suggested_filename
    caught.value.save_as(path)
    start = {"SVG": b"<svg", "PNG": b"\x89PNG", "TXT": b"#"}[kind]
    assert path.read_bytes()[: len(start)] == start
    assert path.name == f"progress.{kind.lower()}"


def test_the_winners_card_is_on_the_first_screen(page, page_of_many: Path):
    card = page.locator(".card")
    box = card.bounding_box()
    assert box["y"] + box["height"] < 900
    assert "Winner" in card.inner_text()
    assert page.locator(".front svg[role=img]").bounding_box()["y"] < 600
    folder = page_of_many.parent
    for link in card.locator("a").all():
        assert (folder / link.get_attribute("href")).exists() or "best/" in link.get_attribute(
            "href"
        )
