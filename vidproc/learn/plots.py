"""Pictures of scores and of training, as PNG bytes. matplotlib without a display (Agg)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vidproc.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_NAMES = 40
"""More tick labels than this cannot be read."""


def confusion_png(confusion: np.ndarray, labels: Sequence[str]) -> bytes:
    """Counts (truth by row, answer by column) drawn as shares of their row; white where a class has no example."""
    side = min(4 + 0.3 * len(labels), 16)
    figure, axes = _figure(side + 1, side)
    total = confusion.sum(1, keepdims=True)
    shares = np.divide(confusion, total, out=np.full(confusion.shape, np.nan), where=total > 0)
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(image, label="share of the true class")
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    if len(labels) <= _MOST_NAMES:
        names = [*map(_drawn, labels)]
        axes.set_xticks(range(len(labels)), names, rotation=90)
        axes.set_yticks(range(len(labels)), names)
    if len(labels) <= 15:
        for i, j in zip(*np.nonzero(confusion), strict=True):
            colour = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, str(confusion[i, j]), ha="center", va="center", color=colour, fontsize=8)
    return _png(figure)


def precision_recall_png(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str) -> bytes:
    """Label -> (recall, precision), a line a class; the ten with the most area get a colour and a name."""
    figure, axes = _figure(7, 5)
    areas = {k: float(np.nan_to_num(np.diff(r, prepend=0.0) @ p)) for k, (r, p) in curves.items()}
    named = sorted(areas, key=lambda k: -areas[k])[:10]
    for label, (recall, precision) in curves.items():
        style: dict[str, Any] = {"label": _drawn(label)} if label in named else {"color": "0.8", "linewidth": 0.8}
        axes.plot(recall, precision, **style)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title=title)
    if named:
        axes.legend(fontsize=8, loc="lower left")
    return _png(figure)


def curves_png(rows: Sequence[Mapping[str, float]], best: float | None = None) -> bytes:
    """Rows of metrics with the key `epoch` -> one panel a metric, but the loss of the validation beside that of the
    training, since what they tell is where they part; and the `best` epoch, if given."""
    names = [name for name in (rows[-1] if rows else {}) if name not in ("epoch", "val_loss", "seconds")]
    columns = 2 if len(names) == 4 else min(3, max(1, len(names)))
    lines = -(-max(1, len(names)) // columns)
    figure, axes = _figure(4 * columns, 3 * lines, lines, columns)
    for panel, name in zip(np.ravel(axes), names, strict=False):
        beside = {"loss": {"loss": "training", "val_loss": "validation"}}.get(name, {name: name})
        for key, legend in beside.items():
            if points := [(row["epoch"], row[key]) for row in rows if key in row]:
                panel.plot(*zip(*points, strict=True), marker=".", label=legend)
        if best is not None:
            panel.axvline(best, color="0.6", linestyle=":", label="kept")
        panel.set(title=name, xlabel="epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
        if name == "loss":
            panel.legend(fontsize=8)
    for panel in np.ravel(axes)[len(names) :]:
        panel.set_visible(False)
    return _png(figure)


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns)


def _drawn(label: str) -> str:
    """As it stands in a picture: matplotlib would read formulas between dollar signs, and leave out of a legend what
    begins with an underscore."""
    text = printable(label).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()
