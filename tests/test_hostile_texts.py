"""Texts of users stay text, wherever they go: code, HTML, Markdown, SVG, TOML, terminal, commands.

One hostile text stands in every place at once; what is written is opened by real parsers.
"""

import ast
import json
import random
import re
import tomllib
from html import escape
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import forked
import numpy as np
import pandas as pd
import pytest
from elements import Elements
from markdown_it import MarkdownIt

from hpo.report.blocks.page import markdown

TOUCH = "__import__('pathlib').Path('pwned').touch()"
HOSTILE = (
    "</title></script><script>alert(1)</script><img src=x onerror=y> \"' `a` *b* | _c_ [d](http:e) "
    "![f](//g) \\ {{ 7 * 7 }} $(touch pwned) &lt;b&gt; ~~~ $x$ :smile: [/red] [bold] \x1b[2J "
    f"\u202e\n```\n{TOUCH}\n\n# heading\n\n<b>raw</b>\n\n- a"
)
FILE = "a \"b\" 'c' <i> $(touch pwned) \u202e\x1b[2J\n```\n# d.parquet"
STUDIES = ("search", "own", "grid")
OUT = "out '<b>` $(touch pwned)"
TERMINAL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

SEARCH = """
title = TEXT
text = TEXT
dataset = { file = DATA, label = LABEL }
MODEL
[search]
n_trials = 2
pruner = "none"
[finalists]
k = 1
seeds = 1
[space]
optimizer = "adam"
lr = [0.02, 0.01]
epochs = 2
"""
PERCEPTRON = 'depth = 1\nwidth = 4\nactivation = "relu"\n'
GRID = """
title = TEXT
text = TEXT
source = TEXT
dataset = { file = DATA, label = LABEL }
model = "nets:build"
[base]
optimizer = "adam"
lr = 0.02
epochs = 2
[[cells]]
name = "one"
word = WORD
[[cells.reported]]
label = TEXT
test_accuracy = 0.5
[[cells]]
name = "two"
word = "b"
[[experiments]]
title = TEXT
text = TEXT
cells = ["one", "two"]
[[claims]]
says = TEXT
quote = TEXT
where = TEXT
greater = ["one", "two"]
[[unsaid]]
what = TEXT
chosen = TEXT
"""
NETS = """
from torch import nn
def build(shape, classes, word):
    if word.startswith("fail"):
        raise ValueError(word)
    return nn.Linear(shape[0], classes)
"""


CLASS = "</b>|*```\x1b[2J\n__import__('os')"
WORD = "</script><b>[/red]`|*\x1b[2J\r\u202e\n```\n# h\n<b>raw</b>\n__import__('os')"


def filled(text: str, model: str = 'model = "nets:build"') -> str:
    """A study file with the hostile text in place of each TEXT."""
    literals = {"TEXT": HOSTILE, "DATA": FILE, "WORD": WORD, "LABEL": HOSTILE[::-1]}
    for name, literal in literals.items():
        text = text.replace(name, json.dumps(literal))
    return text.replace("MODEL", model)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with a search, a search with a network of one's own, and a grid, run, shown,
    compared and exported; and all that the commands said."""
    folder = tmp_path_factory.mktemp("hostile")
    said = []

    def hpo(*arguments: str, code: int = 0) -> None:
        ended = forked.command(list(arguments), folder, 120)
        assert ended.code == code, f"{arguments}\n{ended.out}\n{ended.err}"
        said.extend([ended.out, ended.err])

    random = np.random.default_rng(0)
    rows = pd.DataFrame(random.normal(size=(60, 2)), columns=[HOSTILE, f"b{HOSTILE}"])
    rows[HOSTILE[::-1]] = np.where(random.random(60) < 0.5, CLASS, "b")
    rows.to_parquet(folder / FILE)
    (folder / "nets.py").write_text(NETS)
    (folder / "search.toml").write_text(filled(SEARCH, "") + PERCEPTRON)
    (folder / "own.toml").write_text(
        filled(f"{SEARCH}word = [WORD, FAIL]\n".replace("FAIL", json.dumps(f"fail {WORD}"[:99])))
    )
    (folder / "grid.toml").write_text(filled(GRID))
    for study in STUDIES:
        hpo("run", f"{study}.toml", "--out", OUT)
        hpo("show", study)
    hpo("export", "own", "--to", "tensorboard", "--reports", OUT)
    hpo("report", "own", "--out", OUT)
    hpo("compare", "search", "own")
    hpo("data", "get", FILE, "--label", HOSTILE[::-1])
    hpo("list")
    best = f"{OUT}/search/best"
    hpo("predict", best, FILE)
    hpo("predict", best, f"no {FILE}", code=2)
    hpo("init", "new", "--dataset", FILE)
    return folder, said


def test_terminals_get_no_control_characters(ran):
    _, said = ran
    for text in said:
        assert not TERMINAL.search(text), text


def test_nothing_of_it_is_run(ran):
    folder, _ = ran
    assert not list(folder.rglob("pwned"))


@pytest.mark.parametrize("study", STUDIES)
def test_pages_hold_it_as_text(ran, study):
    place = ran[0] / OUT / study
    html = (place / "index.html").read_text("utf-8")
    page, drawn = Elements(html), html.count('<image xlink:href="data:image/png;base64,')
    files = re.findall(r'<a href="(?:best/config\.toml|[a-z]+\.(?:csv|json))">', html)
    own_scripts = 1 + html.count('<script type="application/json" id="trials">')
    outside = page.found["link outside"] - len(files)
    assert (page.found["script"], outside) == (own_scripts, drawn)
    assert not {"img", "b", "i"} & set(page.found)
    assert not any(key.startswith("on") for key in page.found)
    assert not TERMINAL.search(page.text)
    tokens = (
        MarkdownIt("commonmark").enable("table").parse((place / "report.md").read_text("utf-8"))
    )
    inline = [child for token in tokens for child in token.children or ()]
    raw = {t.content.strip() for t in (*tokens, *inline) if t.type.startswith("html")}
    assert all(re.fullmatch(r"</?(details|summary)>.*", text) for text in raw), raw
    links = [t.attrs for t in inline if t.type in ("link_open", "image")]
    own = r"figures/[\w.-]+\.svg|best/config\.toml|[a-z]+\.(csv|json)"
    assert all(re.fullmatch(own, a.get("src") or a["href"]) for a in links), links
    for token, text in pairwise(tokens):
        if token.type == "heading_open":
            assert text.content != "heading"
    for picture in (place / "figures").glob("*.svg"):
        ElementTree.parse(picture)


def test_markdown_shows_any_text_as_it_is_and_escapes_no_more_than_it_must():
    plain = "크[게], 98.49 ~ 98.58, p < 0.001, [relu, leaky_relu]"
    assert markdown(plain) == plain
    parser, rng = MarkdownIt("commonmark").enable(["table", "strikethrough"]), random.Random(0)
    pieces = [*"[]()_~*<!:^`\\-.>게", "a", "b ", "x", "&lt;", " ", "1.", "# "]
    for _ in range(5_000):
        text = " ".join("".join(rng.choices(pieces, k=rng.randint(1, 12))).split())
        shown = f"<p>{escape(text, quote=False)}</p>\n" if text else ""
        assert parser.render(markdown(text)) == shown, text


@pytest.mark.parametrize("study", ["search", "own"])
def test_code_and_toml_hold_it_as_text(ran, study):
    place = ran[0] / OUT / study
    tokens = MarkdownIt().parse((place / "report.md").read_text("utf-8"))
    programs = [t.content for t in tokens if t.type == "fence" and "load_state_dict" in t.content]
    assert len(programs) == 1
    calls = [
        ast.unparse(n.func) for n in ast.walk(ast.parse(programs[0])) if isinstance(n, ast.Call)
    ]
    assert not [call for call in calls if "__import__" in call or "touch" in call]
    saved = tomllib.loads((place / "best/config.toml").read_text("utf-8"))
    assert saved["columns"] == [HOSTILE, f"b{HOSTILE}"]
    assert CLASS in saved["classes"]
    proposed = tomllib.loads((ran[0] / "new.toml").read_text("utf-8"))
    assert proposed["dataset"]["file"] == FILE
