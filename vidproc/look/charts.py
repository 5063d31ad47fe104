"""Numbers as inline SVG: bars that a screen reader reads as a sentence, coloured by the page's style sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from vidproc.text import printable


def text(value: object) -> str:
    """Any value as text in HTML: it is never markup, and shows each character that would be invisible."""
    return escape(printable(str(value)), quote=True)


def bars(
    title: str, names: Sequence[str], series: Mapping[str, Sequence[int]], *, marks: Sequence[str] | None = None
) -> str:
    """Stacked bars, one a name, with a legend and the same numbers as a table. The n-th series has the class `cn` of
    the style sheet, which knows seven. `marks`: what stands below each bar; an empty text for none."""
    marks = marks or names
    totals = [sum(values[i] for values in series.values()) for i in range(len(names))]
    top = max([1, *totals])
    width, height, left, low = 720, 220, 44, 26
    step = (width - left - 4) / max(1, len(names))
    parts = []
    for share in (0.5, 1.0):
        y = height - low - (height - low - 12) * share
        parts.append(f'<line class="grid" x1="{left}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}"/>')
        if top * share == round(top * share):
            parts.append(
                f'<text class="axis" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{round(top * share):,}</text>'
            )
    for i, name in enumerate(names):
        y = float(height - low)
        wide = min(step * 0.76, 56.0)
        x = left + (i + 0.5) * step - wide / 2
        for n, (label, values) in enumerate(series.items()):
            tall = (height - low - 12) * values[i] / top
            if values[i]:
                y -= tall
                what = f"{text(name)}: {text(label)} {values[i]:,}"
                parts.append(
                    f'<rect class="c{n}" x="{x:.1f}" y="{y:.2f}" width="{wide:.1f}" height="{max(tall, 0.5):.2f}">'
                    f"<title>{what}</title></rect>"
                )
        if marks[i]:
            middle = x + wide / 2
            parts.append(
                f'<text class="axis" x="{middle:.1f}" y="{height - 8}" text-anchor="middle">{text(marks[i])}</text>'
            )
    parts.append(f'<line class="base" x1="{left}" x2="{width}" y1="{height - low}" y2="{height - low}"/>')
    peak = max(range(len(names)), key=totals.__getitem__, default=0)
    said = f"{title}. Most: {totals[peak]:,}, {names[peak]}." if names else title
    legend = "".join(f'<li><span class="key k{n}"></span>{text(label)}</li>' for n, label in enumerate(series))
    return (
        f'<figure class="chart"><svg role="img" viewBox="0 0 {width} {height}" aria-label="{text(said)}">'
        f'{"".join(parts)}</svg><ul class="legend">{legend}</ul>{_table(title, names, series)}</figure>'
    )


def _table(title: str, names: Sequence[str], series: Mapping[str, Sequence[int]]) -> str:
    """The numbers of a chart, for those who do not see it or want them."""
    head = "".join(f'<th scope="col">{text(label)}</th>' for label in series)
    rows = "".join(
        f'<tr><th scope="row">{text(name)}</th>'
        + "".join(f"<td>{values[i]:,}</td>" for values in series.values())
        + "</tr>"
        for i, name in enumerate(names)
        if any(values[i] for values in series.values())
    )
    return (
        f'<details><summary>The numbers</summary><div class="wide"><table><caption>{text(title)}</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )
