"""Python code that loads a `best/` folder with torch and safetensors alone, for the report."""

import json

from hpo.study.config import CLASSES, Config
from hpo.study.names import ACTIVATIONS

PROGRAM = """\
import torch
from safetensors.torch import load_file
from torch import nn

network = nn.Sequential(
{layers}
)
network.load_state_dict(load_file({model}))
network.eval()

images = torch.rand(2, {features})  # a row an image: its pixels from 0 (black) to 1 (white)
with torch.inference_mode():
    logits = network((images - {mean!r}) / {std!r})
print(logits.softmax(1).max(1))  # probabilities and classes
"""


def snippet(folder: str, config: Config, features: int, mean: float, std: float) -> str:
    """Returns a complete program. folder: where the program finds the model."""
    call = f"nn.{ACTIVATIONS[config.activation].module}()"
    fan_ins = [features, *[config.width] * (config.depth - 1)]
    layers = [f"    nn.Linear({fan_in}, {config.width}), {call}," for fan_in in fan_ins]
    layers.append(f"    nn.Linear({config.width}, {CLASSES}),")
    return PROGRAM.format(
        layers="\n".join(layers),
        model=json.dumps(f"{folder}/model.safetensors", ensure_ascii=False),
        features=features,
        mean=mean,
        std=std,
    )
