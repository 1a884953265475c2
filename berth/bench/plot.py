"""Draws two results as an SVG file, which every browser shows: curves of their times, or bars."""

from collections.abc import Sequence
from html import escape

from berth.bench import compare
from berth.bench.record import Record
from engine.bench import SERVE

WIDTH, PANEL, MARGIN, HEAD = 760, 200, 70, 64
COLOURS = ("#0072b2", "#d55e00")  # two that people of every colour vision tell apart
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#222}.t{font-weight:600}.g{stroke:#ddd}.n{font-size:11px;fill:#555}"
    "@media (prefers-color-scheme:dark){svg{background:#111}text{fill:#eee}.g{stroke:#333}.n{fill:#aaa}}"
)


def draw(a: Record, b: Record) -> str:
    """The whole picture."""
    panels = _curves(a, b) if a.kind == SERVE else []
    panels = panels or [_bars(compare.compare(a, b))]
    height = HEAD + sum(height for height, _ in panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img"><title>{escape(f"{a.label} and {b.label}")}</title><style>{_STYLE}</style>'
    ]
    for place, (name, one) in enumerate((("A", a), ("B", b))):
        y = 18 + 20 * place
        parts.append(f'<rect x="{MARGIN}" y="{y - 10}" width="12" height="12" fill="{COLOURS[place]}"/>')
        parts.append(_text(MARGIN + 20, y, f"{name}: {one.label}, {one.made}"))
    top = HEAD
    for tall, lines in panels:
        parts.append(f'<g transform="translate(0 {top})">{"".join(lines)}</g>')
        top += tall
    return "\n".join([*parts, "</svg>\n"])


def _curves(a: Record, b: Record) -> list[tuple[int, list[str]]]:
    """A panel for each time: milliseconds over percentiles."""
    panels = []
    for name, title in compare.CURVES:
        curves = [compare.curve(one, name) for one in (a, b)]
        if not all(curves):
            continue
        most = max(value for curve in curves for _, value in curve) or 1.0
        lines = [_text(MARGIN, 14, f"{title}: milliseconds by percentile", "t"), *_grid(most)]
        for colour, curve in zip(COLOURS, curves, strict=True):
            points = " ".join(f"{_x(percent):.1f},{_y(value, most):.1f}" for percent, value in curve)
            lines.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>')
        panels.append((PANEL, lines))
    return panels


def _grid(most: float) -> list[str]:
    lines = []
    for part in (0.0, 0.5, 1.0):
        y = _y(part * most, most)
        lines.append(f'<line class="g" x1="{MARGIN}" x2="{WIDTH - 20}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(_text(MARGIN - 8, y + 4, _short(part * most), "n", "end"))
    return lines + [
        _text(_x(percent), PANEL - 14, f"{percent:.0f} %", "n", "middle") for percent in (5, 25, 50, 75, 99)
    ]


def _x(percent: float) -> float:
    return MARGIN + percent / 100 * (WIDTH - 20 - MARGIN)


def _y(value: float, most: float) -> float:
    return PANEL - 32 - value / most * (PANEL - 60)


def _bars(rows: Sequence[compare.Row]) -> tuple[int, list[str]]:
    """Two bars for each figure, by the longer one."""
    lines: list[str] = []
    for place, row in enumerate(rows):
        top = place * 62
        most = max(row.a, row.b) or 1.0
        lines.append(_text(MARGIN, top + 14, f"{row.figure}, {row.unit}", "t"))
        for side, (colour, value) in enumerate(zip(COLOURS, (row.a, row.b), strict=True)):
            y = top + 20 + 17 * side
            long = max(0.0, value / most) * (WIDTH - 2 * MARGIN - 60)
            lines.append(f'<rect x="{MARGIN}" y="{y}" width="{long:.1f}" height="14" fill="{colour}"/>')
            lines.append(_text(MARGIN + long + 6, y + 12, _short(value), "n"))
    return 62 * len(rows) + 10, lines


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
