"""Reports in other languages: a whole catalogue, one language at a time, letters that are there."""

import gettext
import json
import math
import os
import re
import string
from io import BytesIO
from pathlib import Path

import catalogue
import numpy as np
import pytest
from babel.messages.mofile import write_mo
from conftest import Ended

from hpo.errors import InputError
from hpo.language import LANGUAGES, LOCALE, current, marked, nt, t, use
from hpo.report.blocks.table import Column
from hpo.report.blocks.words import span_entry
from hpo.report.figures import style
from hpo.study.metrics import BY_NAME
from hpo.text import count, limit_text, listed, seconds_text

HANGUL = re.compile("[가-힣]")
TRANSLATED = [code for code in LANGUAGES if code != "en"]
CLAIMS = """
title = "Does width pay?"
dataset = "wine"
seeds = 2
[base]
depth = 1
activation = "relu"
optimizer = "adam"
lr = 0.02
epochs = 8
batch_size = 16
[[cells]]
name = "narrow"
width = 4
[[cells]]
name = "wide"
width = 32
[[claims]]
says = "Width pays."
greater = ["wide", "narrow"]
[[claims]]
says = "Width overfits."
greater = ["wide", "narrow"]
metric = "gap"
"""


@pytest.fixture(autouse=True)
def _fonts(request: pytest.FixtureRequest) -> None:
    """Tests that draw Korean need its letters; CI has them."""
    if "forked_hpo" not in request.fixturenames and "hpo" not in request.fixturenames:
        return
    try:
        style.fonts("ko")
    except InputError:
        if os.environ.get("HPO_REQUIRE_BROWSER") == "1":
            raise
        pytest.skip("no font with Korean letters; Debian: apt install fonts-nanum")


def places(text: str) -> list[tuple[str, str]]:
    """The named places of a message and their formats."""
    found = string.Formatter().parse(text)
    return sorted((name, form or "") for _, name, form, _ in found if name is not None)


# --- the catalogue -----------------------------------------------------------------------------


def test_the_program_has_texts_of_every_kind():
    texts = catalogue.texts()
    assert ("{n} trial", "{n} trials") in texts
    assert any("hpo/report/templates/index.html.j2" in files for files in texts.values())
    assert any("studies/grid-report.toml" in files for files in texts.values())
    assert len(texts) > 400


@pytest.mark.parametrize("code", TRANSLATED)
def test_every_text_is_translated_with_all_its_places(code: str):
    known = catalogue.catalogue(code)
    for text in catalogue.texts():
        single, plural = (text, text) if isinstance(text, str) else text
        message = known.get(single)
        assert message, f"not in the catalogue: {single!r}; run python tests/catalogue.py"
        translations = [message.string] if isinstance(text, str) else message.string
        for translation in translations:
            assert translation, f"no translation of {single!r}"
            assert places(translation) == places(plural), f"{single!r}: {translation!r}"
    gone = {message.id for message in known if message.id} - set(catalogue.texts())
    assert not gone, "texts that no code has; run python tests/catalogue.py"


def ends_in_b(syllable: str) -> bool:
    """Whether a Korean syllable ends in ㅂ, as before the polite -니다."""
    return (ord(syllable) - ord("가")) % 28 == 17


def test_korean_has_one_style_and_one_word_for_a_thing():
    """Quotations of a publication keep theirs."""
    known = catalogue.catalogue("ko")
    for text, files in catalogue.texts().items():
        if not all(file.startswith("studies/") for file in files):
            message = known.get(text if isinstance(text, str) else text[0])
            translation = "".join(message.string)
            polite = [each for each in re.findall("([가-힣])니다", translation) if ends_in_b(each)]
            assert not polite, translation
            for word in ("네트워크", "우승"):  # 신경망, 최종 모델
                assert word not in translation, translation


@pytest.mark.parametrize("code", TRANSLATED)
def test_the_compiled_catalogue_is_that_of_the_source(code: str):
    source = BytesIO()
    write_mo(source, catalogue.catalogue(code))
    source.seek(0)
    with (LOCALE / code / "LC_MESSAGES/hpo.mo").open("rb") as file:
        compiled = vars(gettext.GNUTranslations(file))["_catalog"]
    expected = vars(gettext.GNUTranslations(source))["_catalog"]
    head = ""  # its dates may differ
    assert {**compiled, head: ""} == {**expected, head: ""}


# --- texts -------------------------------------------------------------------------------------


def test_texts_are_english_unless_a_language_is_in_use():
    before = [count(1, "trial"), count(2, "trial"), seconds_text(125), listed(["a", "b", "c"])]
    assert before == ["1 trial", "2 trials", "2 min 05 s", "a, b and c"]
    with use("ko"):
        assert current() == "ko"
        assert count(2, "trial") == "시행 2개"
        assert seconds_text(125) == "2분 05초"
        with use("en"):
            assert count(2, "trial") == "2 trials"
        assert t("Baseline") == "베이스라인"
    assert [count(1, "trial"), count(2, "trial"), seconds_text(125)] == before[:3]
    assert current() == "en"


def test_limits_are_exact_and_accuracies_stay_within_100_percent():
    limits = [limit_text(seconds) for seconds in (0.09, 1.5, 45, 300)]
    assert limits == ["0.09 s", "1.5 s", "45 s", "5 min 00 s"]
    accuracy, error = BY_NAME["test_accuracy"], BY_NAME["test_rmse"].of(30.0)
    assert span_entry(accuracy, -2.0, 105.3) == ("0.00 to 100.00", 0.0)
    assert span_entry(accuracy, 87.5, 88.0) == ("87.50 to 88.00", 87.5)
    assert span_entry(error, -5.25, 1.0) == ("0.00 to 5.25", 0.0)


def test_a_text_without_a_translation_stays_as_it_is():
    with use("ko"):
        assert t("My own study, 100% {mine}") == "My own study, 100% {mine}"
        assert t("") == "", "gettext would answer with the catalogue's head"
        assert t("{a:.1f}% of {b}", a=1.26, b="{x}") == "1.3% of {x}"
        assert nt("{n} quark", "{n} quarks", 2) == "2 quarks"
        assert marked("Baseline") == "Baseline"


def test_particles_follow_the_last_sound_of_the_word_before_them():
    forms = {
        "값": "값을 값이 값은 값과 값으로",
        "시드": "시드를 시드가 시드는 시드와 시드로",
        "모델": "모델을 모델이 모델은 모델과 모델로",  # ㄹ takes 로
        "‘끝’": "‘끝’을 ‘끝’이 ‘끝’은 ‘끝’과 ‘끝’으로",
        "ReLU MLP (LR=0.1)": "{0}을 {0}이 {0}은 {0}과 {0}로",  # 일
        "batch_size": "{0}를 {0}가 {0}는 {0}와 {0}로",
        "activation": "{0}을 {0}이 {0}은 {0}과 {0}으로",
        "lr": "lr을 lr이 lr은 lr과 lr로",
        "96.2%": "{0}를 {0}가 {0}는 {0}와 {0}로",
        **{str(n): "{0}을 {0}이 {0}은 {0}과 {0}으로" for n in (0, 3, 6, 10)},
        **{str(n): "{0}을 {0}이 {0}은 {0}과 {0}로" for n in (1, 7, 8)},
        **{str(n): "{0}를 {0}가 {0}는 {0}와 {0}로" for n in (2, 4, 5, 9)},
    }
    both = "{x}을(를) {x}이(가) {x}은(는) {x}과(와) {x}(으)로"
    with use("ko"):
        for word, expected in forms.items():
            assert t(both, x=word) == expected.format(word)


def test_negative_numbers_have_one_sign_in_every_text():
    assert t("{a:+.2f} to {b:.1f}, {c}", a=-1.05, b=-np.inf, c=np.int64(-3)) == "−1.05 to −∞, −3"
    assert t("{a:g} of {name}", a=1e-05, name="half-open -1") == "1e-05 of half-open -1"
    column = Column("gap", "Gap", lambda row: row, "{:+.2f}")
    assert [column.entry(v).text for v in (-0.5, 0.5, math.nan)] == ["−0.50", "+0.50", "–"]


@pytest.mark.parametrize("given", ["kr", "", "../ko", "ko.UTF-8"])
def test_an_unknown_language_is_refused_before_anything_is_run(forked_hpo, given: str):
    answer = forked_hpo("run", "grid-report", "--lang", given)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == f"hpo: --lang: must be one of en, ko, got {given!r}\n"


def test_a_machine_without_the_letters_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(style.FONTS, "ko", ("No Such Font",))
    style.fonts.cache_clear()
    with pytest.raises(InputError, match=r"no font with its letters .* apt install fonts-nanum"):
        style.fonts("ko")
    style.fonts.cache_clear()


# --- reports -----------------------------------------------------------------------------------


def read(folder: Path, *more: str) -> list[str]:
    return [(folder / name).read_text() for name in ("index.html", "report.md", *more)]


def assert_korean(html: str, markdown: str) -> None:
    assert '<html lang="ko">' in html
    headings = re.findall("^## (.*)$", markdown, re.MULTILINE)
    headers = re.findall(r"^(\|.*\|) ?\n\|.? ?---", markdown, re.MULTILINE)
    captions = re.findall(r"^\*(.*)\*$", markdown, re.MULTILINE)
    assert min(map(len, (headings, headers, captions))) > 0
    for text in (*headings, *headers, *captions):
        assert HANGUL.search(text), text


def test_a_search_is_reported_in_korean_and_in_english_again(
    forked_hpo, ended_search: Ended, tmp_path: Path
):
    url, pages = f"sqlite:///{ended_search.folder}/hpo.db", {}
    for given in ("ko", "en"):
        lang = {"HPO_LANG": given} if given == "ko" else {}
        answer = forked_hpo("report", "tiny", "--storage", url, "--out", "out", env=lang)
        assert answer.code == 0, answer.err
        assert not HANGUL.search(answer.out), "the terminal stays English"
        pages[given] = read(tmp_path / "out/tiny", "curves.csv", "trials.csv")
    first = read(ended_search.folder / "reports/tiny", "curves.csv", "trials.csv")
    assert pages["ko"][2:] == pages["en"][2:] == first[2:], "files for programs stay as they are"
    assert not HANGUL.search(pages["en"][0])
    assert_korean(*pages["ko"][:2])


def test_a_grid_runs_to_a_korean_report_with_english_verdicts_for_programs(hpo, tmp_path: Path):
    (tmp_path / "width.toml").write_text(CLAIMS)
    answer = hpo("run", "width.toml", "--quiet", "--lang", "ko")
    assert answer.code == 0, answer.err
    html, markdown, verdicts = read(tmp_path / "reports/width", "verdicts.json")
    assert_korean(html, markdown)
    assert '<span class="mark">판정 보류</span>' in html
    assert 'class="unresolved"' in html, "colours go by the English name"
    assert "Width pays." in html, "the user's own words stay"
    assert re.search("wide의 테스트 정확도는 narrow보다 .*%p (높다|낮다)", markdown)
    assert re.search("wide의 학습·검증 정확도 격차는 narrow보다 .*%p (크다|작다)", markdown)
    assert not re.search(r"[을이은과]\([를가는와]\)|\(으\)로", html + markdown)
    assert json.loads(verdicts)["conclusions"][0]["verdict"] == "unresolved"
    assert not HANGUL.search(verdicts)
