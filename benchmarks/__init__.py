"""What the figures in docs/performance.md come from: this program beside its peers, in one interleaved run.

    python -m benchmarks [NAMES…] [--quick] [--repeat N]

Each module here that has a NAME is one benchmark:

    NAME: str                                what it is called on the command line and in the document
    run(quick: bool, repeat: int) -> dict    measure; JSON, with every sample that was taken
    table(results: dict) -> str              Markdown, made from that JSON alone
    plot(results: dict) -> str               optional: an SVG

Medians and ratios are worked out in `table`, so a new way to look at old figures needs no new run.
"""
