"""The command: measure, keep the figures as JSON, and write tables and plots into docs/performance.md."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.machine import describe

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
DOCUMENT = HERE.parent / "docs" / "performance.md"


def main() -> None:
    """Run the named benchmarks, or all; `--render` writes the document anew from the figures that are there."""
    found = benchmarks()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure this program beside its peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones: {', '.join(found)} (all)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, only shown: to see that it works")
    parser.add_argument("--repeat", type=int, default=5, help="rounds; each measures everything once (5)")
    parser.add_argument("--render", action="store_true", help="measure nothing, write the document anew")
    given = parser.parse_args()
    if unknown := set(given.names) - found.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(found)}")
    for name in given.names or found:
        module = found[name]
        if not given.render:
            document = measure(module, given.quick, given.repeat)
            if given.quick:
                print(module.table(document["results"]))
                continue
            keep(name, document)
        write_into_document(module)


def benchmarks() -> dict[str, ModuleType]:
    """By name, every module of this package that is a benchmark."""
    modules = [importlib.import_module(f"benchmarks.{path.stem}") for path in sorted(HERE.glob("[a-z]*.py"))]
    return {module.NAME: module for module in modules if hasattr(module, "NAME")}


def measure(module: ModuleType, quick: bool, repeat: int) -> dict[str, Any]:
    """One benchmark's results, and what they were measured on."""
    print(f"{module.NAME} …", flush=True)
    machine, begun = describe(), time.time()
    results = module.run(quick, repeat)
    taken = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(begun))
    return {"taken": taken, "seconds": round(time.time() - begun), "machine": machine, "results": results}


def keep(name: str, document: dict[str, Any]) -> None:
    """Write the figures beside those of the other benchmarks."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


def write_into_document(module: ModuleType) -> None:
    """Put table and plot of the kept figures between their marks in the document."""
    file = RESULTS / f"{module.NAME}.json"
    if not file.exists():
        return
    document = json.loads(file.read_text())
    machine = document["machine"]
    told = f"Taken {document['taken']} in {document['seconds']} s. {machine['summary']}"
    parts = [module.table(document["results"]).strip(), told]
    if hasattr(module, "plot"):
        picture = DOCUMENT.parent / f"performance-{module.NAME}.svg"
        picture.write_text(module.plot(document["results"]))
        parts.insert(0, f"![{module.NAME}]({picture.name})")
    begin, end = f"<!-- {module.NAME} -->", f"<!-- /{module.NAME} -->"
    text = DOCUMENT.read_text()
    if begin not in text:
        text += f"\n## {module.NAME.capitalize()}\n\n{begin}\n{end}\n"
    block = "\n\n".join([begin, *parts, end])
    DOCUMENT.write_text(re.sub(f"{begin}.*?{end}", lambda _: block, text, flags=re.DOTALL))


if __name__ == "__main__":
    main()
