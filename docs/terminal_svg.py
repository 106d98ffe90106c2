"""A recorded terminal as one animated SVG: no script, no font file, readable where animations are off.

Each distinct row of the screen is drawn once and shown while it stands there (CSS keyframes over its opacity).
Where the reader prefers no motion, the last frame stands still.
"""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from pyte.screens import Char, Screen

CELL, LINE, SIZE, EDGE = 8.4, 18.0, 14.0, 14.0
"""Pixels: a character's width, a row's height, the font's size, the margin."""
PACE = 4.0
"""How many times as fast as the run the animation is."""
LONGEST_PAUSE_S = 1.5
"""Frames in which nothing changes for longer are cut to this."""
LAST_S = 6.0
"""Seconds for which the last frame stands before the animation begins again."""

BACKGROUND, FOREGROUND = "#11151c", "#d7dde6"
COLOURS = {
    "black": "#5b6675",
    "red": "#f07178",
    "green": "#a5d66a",
    "brown": "#e6c15c",
    "blue": "#6fb1f0",
    "magenta": "#c792ea",
    "cyan": "#5ccfe6",
    "white": "#d7dde6",
}

Row = tuple[tuple[str, str, bool], ...]
"""Pieces of a row: text, colour, bold."""


@dataclass(frozen=True)
class Frame:
    """What the screen showed from `at` (seconds) until the next frame."""

    at: float
    rows: tuple[Row, ...]

    @classmethod
    def of(cls, screen: Screen, at: float) -> Frame:
        """The screen as it is."""
        return cls(at, tuple(_row(screen, line) for line in range(screen.lines)))


def _row(screen: Screen, line: int) -> Row:
    characters = [screen.buffer[line][column] for column in range(screen.columns)]
    pieces = [
        ("".join(char.data for char in group), colour, bold)
        for (colour, bold), group in groupby(characters, lambda char: (_colour(char), bool(char.bold)))
    ]
    if pieces:
        text, colour, bold = pieces[-1]
        pieces[-1] = (text.rstrip(), colour, bold)
    return tuple(piece for piece in pieces if piece[0])


def _colour(char: Char) -> str:
    if char.fg == "default":
        return FOREGROUND
    return COLOURS.get(char.fg.removeprefix("bright"), f"#{char.fg}" if len(char.fg) == 6 else FOREGROUND)


def animation(frames: Sequence[Frame], columns: int, title: str) -> str:
    """The frames as an SVG that plays in a loop."""
    starts, whole = _timeline(frames)
    shown: dict[tuple[int, Row], list[tuple[float, float]]] = defaultdict(list)
    for index, frame in enumerate(frames):
        end = starts[index + 1] if index + 1 < len(frames) else whole
        for line, row in enumerate(frame.rows):
            if row:
                _extend(shown[line, row], starts[index], end)
    styles, texts = [], []
    for number, ((line, row), spans) in enumerate(shown.items()):
        styles.append(_keyframes(number, spans, whole))
        last = spans[-1][1] >= whole
        texts.append(_text(number, line, row, last))
    width, height = columns * CELL + 2 * EDGE, len(frames[0].rows) * LINE + 2 * EDGE
    return _PAGE.format(
        width=f"{width:.0f}",
        height=f"{height:.0f}",
        title=html.escape(title),
        styles="".join(styles),
        whole=f"{whole:.2f}",
        texts="\n".join(texts),
        background=BACKGROUND,
        size=SIZE,
    )


def _timeline(frames: Sequence[Frame]) -> tuple[list[float], float]:
    """When each frame begins, long pauses cut, and how long the whole takes."""
    starts = [0.0]
    for before, after in pairwise(frames):
        starts.append(starts[-1] + min((after.at - before.at) / PACE, LONGEST_PAUSE_S))
    return starts, starts[-1] + LAST_S


def _extend(spans: list[tuple[float, float]], start: float, end: float) -> None:
    """Add a span; one that follows on the last is joined to it."""
    if spans and spans[-1][1] == start:
        spans[-1] = (spans[-1][0], end)
    else:
        spans.append((start, end))


def _keyframes(number: int, spans: Sequence[tuple[float, float]], whole: float) -> str:
    """The row's visibility over time, in steps."""
    steps = {0.0: 0}
    for start, end in spans:
        steps[start] = 1
        if end < whole:
            steps[end] = 0
    points = "".join(f"{100 * at / whole:.3f}%{{opacity:{on}}}" for at, on in sorted(steps.items()))
    return f"@keyframes k{number}{{{points}}}#r{number}{{animation-name:k{number}}}\n"


def _text(number: int, line: int, row: Row, last: bool) -> str:
    y = EDGE + LINE * line + SIZE
    column, spans = 0, []
    for text, colour, bold in row:
        weight = ' font-weight="bold"' if bold else ""
        width = len(text) * CELL
        spans.append(
            f'<tspan x="{EDGE + column * CELL:.1f}" fill="{colour}"{weight} textLength="{width:.1f}" '
            f'lengthAdjust="spacingAndGlyphs">{html.escape(text)}</tspan>'
        )
        column += len(text)
    kind = ' class="last"' if last else ""
    return f'<text id="r{number}" y="{y:.1f}"{kind}>{"".join(spans)}</text>'


_PAGE = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"
  role="img">
<title>{title}</title>
<style>
text{{font:{size}px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre;opacity:0;\
animation-duration:{whole}s;animation-timing-function:step-end;animation-iteration-count:infinite}}
@media (prefers-reduced-motion:reduce){{text{{animation:none!important}}text.last{{opacity:1}}}}
{styles}</style>
<rect width="100%" height="100%" rx="8" fill="{background}"/>
{texts}
</svg>
"""
