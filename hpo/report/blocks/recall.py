"""Recall of each class and balanced accuracy, for data whose classes are unbalanced."""

import numpy as np

from hpo.analysis.statistics import summarize
from hpo.language import t
from hpo.report.blocks.grid_tables import summary_text
from hpo.report.blocks.page import Table
from hpo.storage.results import StoredGrid

MOST = 10  # classes shown


def recall_table(study: StoredGrid) -> Table | None:
    """Returns a row per cell: mean balanced accuracy, and the mean recall of each class; None for
    balanced classes and where no recall is stored.

    Recall: the share of a class's test images that the network gets right. Balanced accuracy: the
    mean of the classes' recalls (scikit-learn's balanced_accuracy_score).
    """
    if not study.data.get("unbalanced"):
        return None
    by_cell: dict[str, list[np.ndarray]] = {}
    for trial in study.frozen:
        if trial.state.name == "COMPLETE" and "test_recall" in trial.user_attrs:
            recall = np.array(trial.user_attrs["test_recall"], float)
            by_cell.setdefault(trial.user_attrs["cell"], []).append(recall)
    if not by_cell:
        return None
    every = np.mean([np.mean(recalls, axis=0) for recalls in by_cell.values()], axis=0)
    tested = np.flatnonzero(~np.isnan(every))
    shown = sorted(tested[np.argsort(every[tested], kind="stable")[:MOST]])
    rows = []
    for cell in study.file.cells:
        if cell.name in by_cell:
            recalls = 100 * np.array(by_cell[cell.name])
            means = [f"{recalls[:, place].mean():.1f}" for place in shown]
            balanced = summarize(np.nanmean(recalls, axis=1).tolist())
            assert balanced is not None
            rows.append([cell.label, summary_text(balanced, 2), *means, str(len(recalls))])
    names = tuple(study.classes[place] for place in shown)
    which = t("each class")
    if len(shown) < len(tested):
        which = t("the {most} hardest of {n} classes", most=MOST, n=len(tested))
    caption = t(
        "The classes of {data} are unbalanced. Recall of {which}: the share of its test {things} "
        "that is right, mean over seeds. Balanced accuracy: the mean of all classes' recalls, "
        "± standard deviation over seeds.",
        data=study.data_name,
        which=which,
        things=t(study.things),
    )
    if absent := len(every) - len(tested):
        caption += " " + t(
            "Not shown: {absent} of {n} classes have no test {things}.",
            absent=absent,
            n=len(every),
            things=t(study.things),
        )
    return Table(
        headers=[t("Model"), t("Balanced accuracy (%)"), (t("Recall (%)"), names), t("Seeds")],
        rows=rows,
        caption=caption,
    )
