"""The help of a command with its options in groups."""

from __future__ import annotations

import typer.core
from typer._click.core import Context  # typer brings its own click, and names its types nowhere else
from typer._click.formatting import HelpFormatter

_FIRST, _LAST = "Options", "Other"


class GroupedCommand(typer.core.TyperCommand):
    """A command that lists its options by the group (`rich_help_panel`) that each of them names."""

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the arguments, then each group of options in the order of its first one."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], _FIRST: []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            is_argument = param.param_type_name == "argument"
            own = param.name in ("help", "as_json", "debug")
            name = "Arguments" if is_argument else _LAST if own else getattr(param, "rich_help_panel", None) or _FIRST
            groups.setdefault(name, []).append(record)
        if set(groups) - {"Arguments", _FIRST, _LAST}:
            groups[_LAST] = groups.pop(_LAST)
        else:  # few options need no groups
            groups[_FIRST] += groups.pop(_LAST)
        for name, records in groups.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)
