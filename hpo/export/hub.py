"""A search's saved winner as a folder for the Hugging Face Hub: a model card beside the files."""

import json
import shutil
from pathlib import Path
from typing import Any

from hpo.language import t
from hpo.model import snippet
from hpo.model.folder import CODE, CONFIG, ENSEMBLE, MODEL, Description, used
from hpo.process import replacing
from hpo.report.blocks import page
from hpo.report.blocks.search_tables import (
    finalists_table,
    fresh_estimate,
    gain_sentence,
    test_metrics,
    winner_sentence,
)
from hpo.results.study import Finalist, StoredSearch
from hpo.text import count

CARD = "README.md"
NAMES = {"auc": "roc_auc"}  # of metrics, where the Hub has another one


def to_hub(study: StoredSearch, best: Path, folder: Path) -> list[Path]:
    """Writes the model card as https://huggingface.co/docs/hub/model-cards has it, and copies the
    winner's files beside it; other files of the folder stay. best: holds the winner.

    The card's figures are those of the report: means over networks of fresh seeds. Raises OSError.
    """
    assert study.winner
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).unlink(missing_ok=True)
    shutil.rmtree(folder / CODE, ignore_errors=True)
    if (best / CODE).is_dir():
        shutil.copytree(best / CODE, folder / CODE)
    for name in (MODEL, ENSEMBLE, CONFIG):
        (folder / name).unlink(missing_ok=True)
        if (best / name).is_file():
            with replacing(folder / name) as scratch:
                shutil.copyfile(best / name, scratch)
    with replacing(folder / CARD) as scratch:
        scratch.write_text(card(study, study.winner), encoding="utf-8")
    return [folder]


def card(study: StoredSearch, winner: Finalist) -> str:
    """Returns the model card."""
    head = json.dumps(_metadata(study, winner), indent=1, ensure_ascii=False)  # JSON is YAML, too
    temperature = winner.temperature or 1.0
    about = Description(config=winner.config, schema=study.schema, temperature=temperature)
    code = snippet.own_snippet if winner.config.model else snippet.snippet
    lead = [winner_sentence(study), gain_sentence(study)]
    lead.append(
        t(
            "The figures are means over networks of {seeds}; the network here was trained "
            "once more, on all training {things}.",
            seeds=count(len(winner.runs), "fresh seed"),
            things=t(study.things),
        )
    )
    values = {key: str(value) for key, value in used(winner.config.given()).items() if value}
    body = page.render(
        "note.md.j2",
        study.file.title,
        [sentence for sentence in lead if sentence],
        facts=[(t("Data"), study.data_name), *values.items()],
        block=finalists_table(study).but("finalist", "network"),
    )
    return f"---\n{head}\n---\n\n{body.strip()}\n\n```python\n{code('.', about).strip()}\n```\n"


def _metadata(study: StoredSearch, winner: Finalist) -> dict[str, Any]:
    kind = "regression" if study.regression else "classification"
    task = f"{'image' if study.pictures else 'tabular'}-{kind}"
    results = []
    for metric in test_metrics(study):
        if found := fresh_estimate(winner, metric):
            value = metric.sign * found.mean / metric.scale
            kind = NAMES.get(metric.kind, metric.kind)
            name = f"{metric.words}, mean over {count(found.n, 'seed')}"
            results.append({"type": kind, "value": float(f"{value:.6g}"), "name": name})
    data = {"name": study.data_name, "type": study.data["name"]}
    index = [{"task": {"type": task}, "dataset": data, "metrics": results}] if results else []
    return {
        "library_name": "hpo",
        "pipeline_tag": task,
        "tags": ["hpo", "mlp", "pytorch", task],
        **({"model-index": [{"name": study.name, "results": index}]} if index else {}),
    }
