"""The help of a command with its options in groups."""

from __future__ import annotations

import typer.core
from typer._click.core import Context  # typer brings its own click, and names its types nowhere else
from typer._click.formatting import HelpFormatter

_ARGUMENTS, _FIRST, _LAST = "Arguments", "Options", "Other"
_ORDER = (_ARGUMENTS, _FIRST, "Model", "Limits", "Output", "Safety", _LAST)


class GroupedCommand(typer.core.TyperCommand):
    """A command that lists its options by the group (`rich_help_panel`) that each of them names."""

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the arguments, then each group of options."""
        groups: dict[str, list[tuple[str, str]]] = {name: [] for name in _ORDER}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            is_argument = param.param_type_name == "argument"
            own = param.name in ("help", "as_json", "debug")
            name = _ARGUMENTS if is_argument else _LAST if own else getattr(param, "rich_help_panel", None) or _FIRST
            groups[name].append(record)
        if not any(groups[name] for name in _ORDER[2:-1]):  # few options need no groups
            groups[_FIRST] += groups.pop(_LAST)
        for name, records in groups.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)
