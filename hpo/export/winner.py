"""A search's saved winner as ONNX and as a torch.export program, checked on real examples."""

import json
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from hpo.data.schema import Array, Schema
from hpo.errors import InputError
from hpo.model import weights
from hpo.model.weights import Normalized
from hpo.process import replacing

INPUT = "hpo.input"  # key of the input schema, as JSON
TOLERANCE = 1e-4  # of probabilities


def to_onnx(best: Path, folder: Path, examples: Array) -> Path:
    """Writes winner.onnx: features (n, features), pixels of 0 … 1 as float32 or numbers of a table
    as double, to logits (n, classes). The input schema lies in its metadata.

    examples: real ones, on which the file must give the winner's probabilities. Raises InputError
    if onnx, onnxscript or onnxruntime are not installed, and RuntimeError if it gives others.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError("--to onnx: needs onnx: pip install 'hpo-studies[onnx]'") from error
    saved = weights.load(best)
    network, path = saved.module(), folder / "winner.onnx"
    with replacing(path) as scratch:
        write_onnx(network, examples, saved.description.schema, scratch)
        session = onnxruntime.InferenceSession(str(scratch), providers=["CPUExecutionProvider"])
        _check(network, examples, lambda rows: session.run(["logits"], {"features": rows})[0], path)
    return path


def to_program(best: Path, folder: Path, examples: Array) -> Path:
    """Writes winner.pt2, which torch.export.load reads; as to_onnx."""
    saved = weights.load(best)
    network, path = saved.module(), folder / "winner.pt2"
    batch = torch.export.Dim("n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            network, (torch.from_numpy(examples[:2]),), dynamic_shapes=({0: batch},)
        )
        about = json.dumps(saved.description.schema.as_dict(), ensure_ascii=False)
        content = BytesIO()  # torch would not say that a disk is full
        torch.export.save(program, content, extra_files={INPUT: about})
        loaded = torch.export.load(BytesIO(content.getvalue())).module()
    _check(network, examples, lambda rows: loaded(torch.from_numpy(rows)).detach().numpy(), path)
    with replacing(path) as scratch:
        scratch.write_bytes(content.getvalue())
    return path


def write_onnx(network: Normalized, examples: Array, schema: Schema, path: Path) -> None:
    """Writes a network as an ONNX file with its input schema. examples: two or more, for their
    form."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network, (torch.from_numpy(examples[:2]),), dynamo=True, verbose=False,
            input_names=["features"], output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("n")},),
        )  # fmt: skip
    assert program is not None
    program.model.metadata_props[INPUT] = json.dumps(schema.as_dict(), ensure_ascii=False)
    program.save(str(path), external_data=False)


def _check(
    network: Normalized, examples: Array, exported: Callable[[Array], Array], path: Path
) -> None:
    """Raises RuntimeError unless the export gives the network's probabilities."""
    with torch.inference_mode():
        expected = network(torch.from_numpy(examples)).softmax(1)
    found = torch.from_numpy(np.asarray(exported(examples))).softmax(1)
    worst = float((found - expected).abs().max())
    if not worst < TOLERANCE:
        raise RuntimeError(f"{path}: gives other probabilities than the winner, by {worst:.2g}")
