"""A command line with one command, made by typer: with all that typer does by itself, or `plain`, without rich."""

from __future__ import annotations

import sys

import typer


def hello(name: str, count: int = 1) -> None:
    """Say hello."""
    typer.echo(f"hello {name}" * count)


if __name__ == "__main__":
    plain = sys.argv[1:2] == ["plain"]
    del sys.argv[1 : 1 + plain]
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False) if plain else typer.Typer()
    app.command()(hello)
    app(prog_name="bare-typer")
