"""A trial's learning curve as a small picture, for the dashboard."""

import io
from collections.abc import Mapping, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hpo.report.figures.grid import BLUE, VERMILLION, drawing

Curve = Mapping[str, Sequence[float | None]]


class CurvePicture:
    """Draws one curve after another into one figure: a new figure would double the time."""

    def __init__(self) -> None:
        with drawing():
            self.figure = Figure(figsize=(6.4, 2.7), dpi=120)
            FigureCanvasAgg(self.figure)
            self.axes = self.figure.subplots(1, 2)
            self.figure.subplots_adjust(0.085, 0.17, 0.985, 0.88, wspace=0.24)
            self.lines = {}
            for axes, metric, title in zip(
                self.axes, ("loss", "accuracy"), ("Loss", "Accuracy (%)"), strict=True
            ):
                for part, colour, style in (("train", VERMILLION, "--"), ("valid", BLUE, "-")):
                    label = "training" if part == "train" else "validation"
                    (line,) = axes.plot([], [], style, color=colour, marker="o", ms=3, label=label)
                    self.lines[f"{part}_{metric}"] = line
                axes.set_title(title, loc="left")
                axes.set_xlabel("Epoch")
                axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            self.axes[0].legend()

    def png(self, curve: Curve, epochs: int) -> bytes:
        """Returns a PNG. curve: the trial's metrics, one value per epoch, None if it is not a
        number. epochs: of a complete training."""
        for metric, line in self.lines.items():
            scale = 100 if metric.endswith("accuracy") else 1
            values = [float("nan") if v is None else scale * v for v in curve[metric]]
            line.set_data(range(1, len(values) + 1), values)
        with drawing():
            for axes in self.axes:
                axes.relim()
                axes.autoscale_view()
                axes.set_xlim(0.5, epochs + 0.5)
            buffer = io.BytesIO()
            self.figure.savefig(buffer, format="png")
        return buffer.getvalue()
