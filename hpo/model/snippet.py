"""Python code that loads a `best/` folder with torch and safetensors alone, for the report."""

from itertools import pairwise
from typing import Any

from hpo.data.schema import Schema, input_shape
from hpo.model.folder import Description
from hpo.study.config import Config
from hpo.study.names import ACTIVATIONS, NORMS
from hpo.text import printable, shortened

PROGRAM = """\
{imports}
from safetensors.torch import load_file
from torch import nn
{residual}
network = nn.Sequential(
{layers}
)
network.load_state_dict(load_file({model}))
network.eval()
{statistics}
{examples}
with torch.inference_mode():
    {answers} = network({scaled})
print({printed}
"""
PROBABILITIES = "{logits}.softmax(1).max(1))  # probabilities and classes"
RESIDUAL = """

class Residual(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.block = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.block(x)

"""
IMAGES = (
    "images = torch.rand(2, {features})  # a row an image: its pixels from 0 (black) to 1 (white)"
)
ROWS = (
    "rows = torch.randn(2, {features}, dtype=torch.float64)  # a row an example: its features as "
    "in the data"
)
STATISTICS = """
with open({config}, "rb") as file:
    saved = tomllib.load(file)
mean, std = (torch.tensor(saved[key], dtype=torch.float64) for key in ("mean", "deviation"))
# The columns, in this order: saved.get("columns")
"""


CODED = """
from pathlib import Path

from hpo.data import inputs
from hpo.model import folder

schema = folder.read(Path({folder})).schema
rows = inputs.read([Path("rows.csv")], schema).rows  # numbers normalized, gaps filled, text as 0, 1
rows = torch.from_numpy(rows)
"""
OWN = """\
import sys

sys.path.insert(0, {code})  # the modules as they were trained
from {module} import {factory}
from safetensors.torch import load_file

network = {factory}({arguments})
network.load_state_dict(load_file({model}))
network.eval()  # takes normalized inputs: {how}
"""


def own_snippet(folder: str, about: Description) -> str:
    """Returns a program that loads the user's own network by the code that was saved with it."""
    module, _, factory = about.config.model.partition(":")
    schema = about.schema
    shape = input_shape(schema.shape, schema.features)
    given = {"shape": shape, "classes": schema.outputs, **about.config.own}
    single = isinstance(schema.mean, float)
    plain = (
        f"subtract {schema.mean!r}, divide by {schema.std!r}"
        if single
        else ("subtract each column's mean, divide by its standard deviation")
    )
    unit = ""
    if schema.target:
        unit = f"; gives numbers: times {schema.target[1]!r}, plus {schema.target[0]!r}"
    elif about.temperature != 1:
        unit = f"; gives logits: divide them by {about.temperature!r} before the softmax"
    return OWN.format(
        code=repr(f"{folder}/code"),
        module=module,
        factory=factory,
        arguments=", ".join(f"{name}={value!r}" for name, value in given.items()),
        model=repr(f"{folder}/model.safetensors"),
        how=("hpo.data.inputs.read gives them" if is_coded(schema) else plain) + unit,
    )


def is_coded(schema: Schema) -> bool:
    """Whether a network is fed more than numbers less a mean, over a deviation."""
    return bool(schema.levels or schema.gaps or schema.scale != "standard")


def snippet(folder: str, about: Description) -> str:
    """Returns a complete program. folder: where the program finds the model."""
    schema = about.schema
    single = isinstance(schema.mean, float)
    coded = is_coded(schema)
    statistics = "" if single else STATISTICS.format(config=repr(f"{folder}/config.toml"))
    examples = (IMAGES if schema.pixels else ROWS).format(features=schema.features)
    digits = schema.classes == tuple(map(str, range(len(schema.classes))))
    rows = "images" if schema.pixels else "rows"
    scaled = f"({rows} - {schema.mean!r}) / {schema.std!r}" if single else f"({rows} - mean) / std"
    names = "" if digits else f": {_names(schema.classes)}"
    logits = "logits" if about.temperature == 1 else f"(logits / {about.temperature!r})"
    probabilities = PROBABILITIES.format(logits=logits)
    return PROGRAM.format(
        imports="import torch" if single or coded else "import tomllib\n\nimport torch",
        residual=RESIDUAL if about.config.residual else "",
        layers="\n".join(_layers(about.config, schema.features, schema.outputs)),
        model=repr(f"{folder}/model.safetensors"),
        statistics="" if coded else statistics,
        examples=CODED.format(folder=repr(folder)) if coded else examples,
        scaled="rows" if coded else scaled if schema.pixels else f"({scaled}).float()",
        answers="answers" if schema.target else "logits",
        printed=_in_unit(schema) if schema.target else f"{probabilities}{names}",
    )


def _in_unit(schema: Schema) -> str:
    """Returns how answers become numbers in the target's unit, as the end of a program's line."""
    assert schema.target
    mean, deviation = schema.target
    return f"answers[:, 0].double() * {deviation!r} + {mean!r})  # in the unit of the labels"


def _names(classes: Any) -> str:
    listed = ", ".join(f"{i} {printable(shortened(name))}" for i, name in enumerate(classes[:10]))
    return listed + (" …" if len(classes) > 10 else "")


def _layers(config: Config, features: int, classes: int) -> list[str]:
    """Returns the lines of the layers, as training.modules.mlp makes them."""
    norm, lines = NORMS[config.norm].module, []
    if config.input_dropout:
        lines.append(f"    nn.Dropout({config.input_dropout!r}),")
    for index, (fan_in, fan_out) in enumerate(pairwise([features, *config.hidden])):
        parts = [f"nn.Linear({fan_in}, {fan_out})"]
        parts += [f"nn.{norm}({fan_out})"] if norm else []
        parts.append(f"nn.{ACTIVATIONS[config.activation].module}()")
        parts += [f"nn.Dropout({config.dropout!r})"] if config.dropout else []
        block = ", ".join(parts)
        skipped = config.residual and index
        lines.append(f"    Residual({block})," if skipped else f"    {block},")
    return [*lines, f"    nn.Linear({config.hidden[-1]}, {classes}),"]
