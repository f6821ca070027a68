"""A search's saved winner as ONNX and as a torch.export program, checked on real examples."""

import json
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hpo.data.schema import Array, Schema
from hpo.errors import InputError
from hpo.model import weights
from hpo.model.weights import Normalized
from hpo.process import replacing

INPUT = "hpo.input"  # key of the input schema, as JSON
TOLERANCE = 1e-4  # of probabilities; of numbers in standard deviations of the target


def to_onnx(best: Path, folder: Path, examples: Array) -> Path:
    """Writes winner.onnx: `features` (n, columns), pixels of 0 … 1 as float32 or numbers of a table
    as double with NaN for a gap, to `logits` (n, classes), or to `values` (n, 1) in the target's
    unit. The input schema lies in its metadata.

    Columns of text are a second input, `texts` (n, categories), "" for a gap. Both have the order
    of the schema's columns.

    examples: real ones, on which the file must give the winner's probabilities. Raises InputError
    if onnx, onnxscript or onnxruntime are not installed, and RuntimeError if it gives others.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError("--to onnx: needs onnx: pip install 'hpo-studies[onnx]'") from error
    saved = weights.load(best)
    network, schema, path = saved.module(), saved.description.schema, folder / "winner.onnx"
    _check_scale(schema, "onnx")
    with replacing(path) as scratch:
        write_onnx(network, examples, schema, scratch)
        session = onnxruntime.InferenceSession(str(scratch), providers=["CPUExecutionProvider"])
        known = {given.name for given in session.get_inputs()}

        def exported(rows: Array) -> Array:
            given = {k: v for k, v in onnx_inputs(schema, rows).items() if k in known}
            answers: Array = session.run([output_of(schema)], given)[0]
            return answers

        _check(network, examples, exported, path)
    return path


def to_program(best: Path, folder: Path, examples: Array) -> Path:
    """Writes winner.pt2, which torch.export.load reads; as to_onnx, but a column of text is the
    place of its level in the schema."""
    saved = weights.load(best)
    network, path = saved.module(), folder / "winner.pt2"
    _check_scale(saved.description.schema, "torch-export")
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


def output_of(schema: Schema) -> str:
    """Returns the name of the output of winner.onnx."""
    return "values" if schema.target else "logits"


def write_onnx(network: Normalized, examples: Array, schema: Schema, path: Path) -> None:
    """Writes a network as an ONNX file with its input schema. examples: two or more, for their
    form."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network, (torch.from_numpy(examples[:2]),), dynamo=True, verbose=False,
            input_names=["features"], output_names=[output_of(schema)],
            dynamic_shapes=({0: torch.export.Dim("n")},),
        )  # fmt: skip
    assert program is not None
    program.model.metadata_props[INPUT] = json.dumps(schema.as_dict(), ensure_ascii=False)
    if not schema.levels:
        program.save(str(path), external_data=False)
        return
    import onnx

    onnx.save(_with_texts(program.model_proto, schema), str(path))


def _with_texts(network: Any, schema: Schema) -> Any:
    """Returns an ONNX model that takes numbers and texts, of one that takes rows of numbers."""
    from onnx import TensorProto, compose, helper, numpy_helper

    def constant(name: str, values: list[int]) -> Any:
        return numpy_helper.from_array(np.array(values, np.int64), name)

    nodes, constants, codes = [], [], []
    for place, (name, levels) in enumerate(schema.levels.items()):
        text, code, number = (f"{kind}_{place}" for kind in ("text", "code", "number"))
        constants.append(constant(f"place_{place}", [place]))
        nodes += [
            helper.make_node("Gather", ["texts", f"place_{place}"], [text], axis=1),
            helper.make_node(
                "LabelEncoder", [text], [code], domain="ai.onnx.ml",
                keys_strings=list(levels) or [""], values_int64s=list(range(len(levels) or 1)),
                default_int64=len(levels),
            ),
            helper.make_node("Cast", [code], [number], to=TensorProto.DOUBLE),
        ]  # fmt: skip
        codes.append((name, number))
    given = [*schema.numbers, *(name for name, _ in codes)]
    constants.append(constant("order", [given.index(name) for name in schema.columns]))
    joined = ["features"] * bool(schema.numbers) + [number for _, number in codes]
    nodes += [
        helper.make_node("Concat", joined, ["unordered"], axis=1),
        helper.make_node("Gather", ["unordered", "order"], ["rows"], axis=1),
    ]
    numbers = helper.make_tensor_value_info(
        "features", TensorProto.DOUBLE, ["n", len(schema.numbers)]
    )
    texts = helper.make_tensor_value_info("texts", TensorProto.STRING, ["n", len(codes)])
    rows = helper.make_tensor_value_info("rows", TensorProto.DOUBLE, ["n", len(schema.columns)])
    inputs = [*[numbers] * bool(schema.numbers), texts]
    graph = helper.make_graph(nodes, "columns", inputs, [rows], constants)
    opsets = [*network.opset_import, helper.make_opsetid("ai.onnx.ml", 2)]
    columns = helper.make_model(graph, opset_imports=opsets, ir_version=network.ir_version)
    network = compose.add_prefix(network, "network/", rename_outputs=False)
    return compose.merge_models(columns, network, [("rows", "network/features")])


def onnx_inputs(schema: Schema, rows: Array) -> dict[str, Array]:
    """Returns rows (N, columns), as data have them, as the inputs of winner.onnx."""
    if not schema.levels:
        return {"features": rows}
    place = {name: number for number, name in enumerate(schema.columns)}
    texts = [
        np.array([*levels, f"no {levels}"], dtype=object)[rows[:, place[name]].astype(int)]
        for name, levels in schema.levels.items()
    ]
    return {"features": schema.numbers_of(rows), "texts": np.stack(texts, axis=1)}


def _check_scale(schema: Schema, to: str) -> None:
    if schema.scale == "quantile":
        raise InputError(
            f'--to {to}: the study has scale = "quantile", which is not exported; run it with '
            '"standard" or "robust", or use hpo predict'
        )


def _check(
    network: Normalized, examples: Array, exported: Callable[[Array], Array], path: Path
) -> None:
    """Raises RuntimeError unless the export gives the network's probabilities, or numbers."""
    with torch.inference_mode():
        expected = network(torch.from_numpy(examples))
    found, schema = torch.from_numpy(np.asarray(exported(examples))), network.schema
    if not schema.target:
        found, expected = found.softmax(1), expected.softmax(1)
    worst = float((found - expected).abs().max()) / schema.deviation
    if not worst < TOLERANCE:
        kind = "numbers" if schema.target else "probabilities"
        raise RuntimeError(f"{path}: gives other {kind} than the winner, by {worst:.2g}")
