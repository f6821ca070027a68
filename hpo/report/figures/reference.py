"""The reference in the figures of a search: the network that tuning is measured by."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from hpo.language import marked, nt
from hpo.report.figures import style
from hpo.report.figures.axis import within
from hpo.report.figures.svg import plot
from hpo.study.metrics import Metric

MOST = 4.0
LINE: dict[str, Any] = {"color": style.DARK_GREY, "linestyle": (0, (5, 2)), "linewidth": 1.2}
MARK: dict[str, Any] = {"color": style.DARK_GREY, "marker": "D", "linestyle": "", "markersize": 6,
                        "markeredgecolor": "white", "markeredgewidth": 0.8}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The reference on the fresh seeds.

    gain: the mean of the objective's gains. seeds: how many. curve: the mean gain after each epoch.
    settings: the hyperparameters, as on the axes of figures. cost: the second objective; NaN
    without one.
    """

    gain: float
    seeds: int
    curve: Sequence[float] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    cost: float = math.nan

    def text(self, metric: Metric) -> str:
        one = marked("reference, one fresh seed: {value}")
        more = marked("reference, mean of {n} fresh seeds: {value}")
        return nt(one, more, self.seeds, value=metric.spelled(self.gain))

    def shown(self, low: float, high: float) -> bool:
        return low <= self.gain <= high

    def widened(self, low: float, high: float, metric: Metric) -> tuple[float, float]:
        """Returns limits that show the reference, too; the same ones if it lies farther from them
        than MOST times their distance, where it would squeeze the trials."""
        room = MOST * (high - low)
        if low - room < self.gain < low:
            low = self.gain - 0.05 * (high - self.gain)
        elif high < self.gain < high + room:
            high = self.gain + 0.05 * (self.gain - low)
        return within(low, high, metric)

    def line(self, axes: Axes, metric: Metric) -> Line2D:
        """Draws the gain across axes whose limits are set."""
        return axes.axhline(self.gain, zorder=1.8, label=self.text(metric), **LINE)

    def mark(self, axes: Axes, x: float, y: float, metric: Metric, **look: Any) -> Line2D:
        """Draws a diamond with the gain as its tooltip; nothing where x is NaN."""
        return plot(axes, [x], [y], [self.text(metric)], zorder=3.5, **{**MARK, **look})
