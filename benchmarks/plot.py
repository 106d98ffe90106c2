"""Bar charts as SVG, readable on light and dark pages: one number a bar, ours in another colour."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

_ROW, _LEFT, _BAR, _RIGHT = 22, 330, 420, 90
_OURS, _OTHER = "#2f6fdb", "#9aa4b2"


def bars(title: str, values: Mapping[str, float], form: str = ".2f") -> str:
    """One bar for each value, in the given order, from 0."""
    width, height = _LEFT + _BAR + _RIGHT, (len(values) + 2) * _ROW
    most = max(values.values())
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="sans-serif" font-size="12"><title>{escape(title)}</title>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="10" y="{_ROW * 0.8:.0f}" font-weight="bold">{escape(title)}</text>',
    ]
    for number, (name, value) in enumerate(values.items(), start=1):
        top, length = number * _ROW + _ROW // 2, max(1.0, _BAR * value / most)
        colour = _OURS if name.startswith("ours") else _OTHER
        lines += [
            f'<text x="{_LEFT - 8}" y="{top + 13}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{_LEFT}" y="{top + 2}" width="{length:.1f}" height="{_ROW - 6}" fill="{colour}"/>',
            f'<text x="{_LEFT + length + 6:.1f}" y="{top + 13}">{value:{form}}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"
