"""Draws the Mermaid diagrams of architecture.md into architecture-diagram.html, twice each: light and dark.

MMDC=path/to/mmdc CHROMIUM=path/to/chromium python docs/render_diagrams.py

The page needs no network. Each figure carries the SHA-256 of its diagram's source, by which a test sees
whether page and source still agree.
"""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
SOURCE = HERE / "architecture.md"
PAGE = HERE / "architecture-diagram.html"
TEMPLATE = HERE / "architecture-diagram.template.html"

FONT = '"Liberation Sans", Arial, Helvetica, sans-serif'
"""Fonts of equal widths, so that texts fit their boxes on every system."""

_COLOURS = {
    "light": {
        "background": "#ffffff",
        "primaryColor": "#eaf1fb",
        "primaryBorderColor": "#3f6fb5",
        "primaryTextColor": "#16202e",
        "secondaryColor": "#e6f4ec",
        "tertiaryColor": "#f5f7fa",
        "tertiaryBorderColor": "#c4ccd8",
        "lineColor": "#5b6b80",
        "textColor": "#16202e",
        "noteBkgColor": "#fdf6dd",
        "noteBorderColor": "#d8c378",
        "noteTextColor": "#16202e",
        "edgeLabelBackground": "#ffffff",
        "bar": "#3f6fb5",
    },
    "dark": {
        "background": "#171c24",
        "primaryColor": "#233247",
        "primaryBorderColor": "#7ba6e6",
        "primaryTextColor": "#e7ecf3",
        "secondaryColor": "#1f3a2e",
        "tertiaryColor": "#1d242f",
        "tertiaryBorderColor": "#455164",
        "lineColor": "#9aa8bb",
        "textColor": "#e7ecf3",
        "noteBkgColor": "#3a3420",
        "noteBorderColor": "#8a7a3c",
        "noteTextColor": "#e7ecf3",
        "edgeLabelBackground": "#171c24",
        "bar": "#7ba6e6",
    },
}

_CSS = (
    ".node rect, .cluster rect { rx: 6px; ry: 6px; } .edgeLabel rect, .edgeLabel .background { opacity: 1 !important; }"
)


@dataclass(frozen=True)
class Diagram:
    """One diagram, under the heading that it stands below."""

    title: str
    source: str

    @property
    def digest(self) -> str:
        """SHA-256 of the source."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    @property
    def anchor(self) -> str:
        """Its place in the page."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def diagrams(markdown: str) -> list[Diagram]:
    """The Mermaid blocks of a document, in order."""
    parts = re.findall(r"^#+ ([^\n]+)$|^```mermaid\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL)
    found, heading, below = [], "", 0
    for title, source in parts:
        if title:
            heading, below = title, 0
        else:
            below += 1
            found.append(Diagram(heading if below == 1 else f"{heading} ({below})", source))
    return found


def _config(theme: str) -> dict[str, object]:
    colours = dict(_COLOURS[theme])
    bar = colours.pop("bar")
    chart = {
        **dict.fromkeys(("titleColor", "xAxisLabelColor", "yAxisLabelColor"), colours["textColor"]),
        **dict.fromkeys(("xAxisTitleColor", "yAxisTitleColor"), colours["textColor"]),
        **dict.fromkeys(("xAxisLineColor", "yAxisLineColor", "xAxisTickColor"), colours["lineColor"]),
        "backgroundColor": colours["background"],
        "plotColorPalette": bar,
    }
    gantt = {
        "taskBkgColor": bar,
        "taskBorderColor": bar,
        "taskTextColor": colours["background"],
        "taskTextLightColor": colours["background"],
        "taskTextOutsideColor": colours["textColor"],
        "taskTextDarkColor": colours["textColor"],
        "sectionBkgColor": colours["tertiaryColor"],
        "sectionBkgColor2": colours["tertiaryColor"],
        "altSectionBkgColor": colours["background"],
        "gridColor": colours["tertiaryBorderColor"],
    }
    labels = {"titleColor": colours["textColor"], "labelBackgroundColor": colours["background"]}
    variables = {**colours, **gantt, **labels, "darkMode": theme == "dark", "fontFamily": FONT, "fontSize": "15px"}
    return {
        "theme": "base",
        "themeCSS": f"{_CSS} .grid .tick line {{ stroke: {colours['tertiaryBorderColor']}; }}",
        "themeVariables": {**variables, "xyChart": chart},
        "fontFamily": FONT,
        "flowchart": {"htmlLabels": False, "curve": "basis", "nodeSpacing": 30, "rankSpacing": 38},
        "sequence": {"mirrorActors": False, "messageFontSize": 14},
        "gantt": {"barHeight": 26, "barGap": 6, "fontSize": 13, "leftPadding": 90, "topPadding": 40},
        "htmlLabels": False,
    }


def _draw(found: list[Diagram], theme: str) -> list[str]:
    """The SVG of each diagram, its ids made unique in the page."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome") or ""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "browser.json").write_text(json.dumps({"executablePath": chromium, "args": ["--no-sandbox"]}))
        (folder / "config.json").write_text(json.dumps(_config(theme)))
        (folder / "in.md").write_text("".join(f"```mermaid\n{diagram.source}```\n\n" for diagram in found))
        command = [os.environ.get("MMDC", "mmdc"), "-p", "browser.json", "-c", "config.json", "-b", "transparent"]
        subprocess.run([*command, "-i", "in.md", "-o", "out.md"], cwd=folder, check=True)
        drawn = [(folder / f"out-{number}.svg").read_text() for number in range(1, len(found) + 1)]
    return [svg.replace("my-svg", f"{theme}-{number}") for number, svg in enumerate(drawn, 1)]


def _figure(diagram: Diagram, light: str, dark: str) -> str:
    return (
        f'<figure id="{diagram.anchor}" data-source-sha256="{diagram.digest}">\n'
        f"<figcaption>{html.escape(diagram.title)}</figcaption>\n"
        f'<div class="drawing light">{light}</div>\n<div class="drawing dark">{dark}</div>\n'
        f"<details><summary>Source</summary><pre>{html.escape(diagram.source)}</pre></details>\n</figure>\n"
    )


def main() -> None:
    """Draw the page anew."""
    found = diagrams(SOURCE.read_text(encoding="utf-8"))
    pairs = zip(found, _draw(found, "light"), _draw(found, "dark"), strict=True)
    figures = "".join(_figure(*pair) for pair in pairs)
    links = "".join(f'<li><a href="#{d.anchor}">{html.escape(d.title)}</a></li>' for d in found)
    page = TEMPLATE.read_text(encoding="utf-8").replace("<!-- links -->", links).replace("<!-- figures -->", figures)
    PAGE.write_text(page, encoding="utf-8")
    print(f"{PAGE.name}: {len(found)} diagrams, {PAGE.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
