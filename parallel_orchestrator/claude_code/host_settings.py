"""What a person has set up for their own Claude Code, for runs that are to have it (`claude_settings: host`).

Claude Code gets copies that it can only read, in a folder of their own that is gone when it ends:

    settings.json   the user's settings, without what would lead it another way than to us: credentials and who helps
                    to get them, variables that we set or that name a secret, sandboxes, plugins
    CLAUDE.md       the user's memory
    mcp.json        the user's MCP servers that are programs; where there is no network others could do nothing

Settings of a project, the one being built among them, are left out. What looks like a credential is taken out of the
first two. The servers need theirs: those are kept out of transcript and log as far as they are known by value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.system import redact
from parallel_orchestrator.system.environment import names_secret, secret_values
from parallel_orchestrator.system.folders import remove_folder

SETTINGS, MEMORY, SERVERS = "settings.json", "CLAUDE.md", "mcp.json"

_LEFT_OUT = re.compile(
    r"apiKeyHelper|proxyAuthHelper|otelHeadersHelper|(aws|gcp)\w+|force\w+|model|sandbox|\w*[pP]lugin\w*|\w*[mM]arket\w*"
)
"""Settings that say who pays or which model is asked, or that cannot work inside the sandbox."""
_OURS = re.compile(r"(ANTHROPIC|CLAUDE|AWS|GOOGLE|AZURE|OTEL|DISABLE|ENABLE|MAX|MCP)_.*|\w*_PROXY", re.IGNORECASE)
"""Variables that lead Claude Code itself."""


@dataclass(frozen=True)
class HostSettings:
    """The person's own, as it is at this moment."""

    settings: dict[str, Any] = field(default_factory=dict)
    memory: str = ""
    servers: dict[str, Any] = field(default_factory=dict, repr=False)
    """MCP servers that are programs, by name; they may hold credentials."""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> HostSettings:
        """Those of whoever's environment this is. Raises UsageError where a file is there and cannot be read."""
        configured = environment.get("CLAUDE_CONFIG_DIR")
        home = Path(environment.get("HOME", "/"))
        folder = Path(configured) if configured else home / ".claude"
        state = _json((folder if configured else home) / ".claude.json")
        servers = {name: one for name, one in _table(state, "mcpServers").items() if _is_program(one)}
        return cls(_json(folder / "settings.json"), _text(folder / "CLAUDE.md"), servers)

    def describe(self) -> str:
        """For a person."""
        named = f" and MCP servers {', '.join(sorted(self.servers))}" if self.servers else ""
        parts = [word for word, there in (("settings", self.settings), ("CLAUDE.md", self.memory)) if there]
        return f"your own {' and '.join(parts) or 'settings (there are none)'}{named}"

    def write(self, folder: Path, ours: Collection[str]) -> None:
        """Put the copies there. `ours`: variables that nobody else sets."""
        redact.know(*(value for one in self.servers.values() for value in _secrets(one)))
        kept = {name: value for name, value in self.settings.items() if not _LEFT_OUT.fullmatch(name)}
        kept["env"] = {
            name: value
            for name, value in _table(self.settings, "env").items()
            if name not in ours and not _OURS.fullmatch(name) and not names_secret(name)
        }
        (folder / SETTINGS).write_text(json.dumps(redact.foreign(kept)), encoding="utf-8")
        (folder / MEMORY).write_text(redact.foreign(self.memory), encoding="utf-8")
        (folder / SERVERS).write_text(json.dumps({"mcpServers": self.servers}), encoding="utf-8")


def link(copies: str, config: Path) -> None:
    """Have Claude Code find the copies in its configuration directory; `copies` is where it sees their folder."""
    for name in (SETTINGS, MEMORY):
        place = config / name
        if place.is_dir() and not place.is_symlink():  # a command may have put something else there
            remove_folder(place)
        place.unlink(missing_ok=True)
        place.symlink_to(f"{copies}/{name}")


def _is_program(server: Any) -> bool:
    return isinstance(server, dict) and bool(server.get("command")) and server.get("type", "stdio") == "stdio"


def _secrets(server: Mapping[str, Any]) -> tuple[str, ...]:
    return secret_values({name: str(value) for name, value in _table(server, "env").items()})


def _table(holder: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = holder.get(name)
    return found if isinstance(found, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}; mend it, or run without --claude-settings host") from error


def _json(path: Path) -> dict[str, Any]:
    text = _text(path)
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UsageError(f"{path} is no JSON object; mend it, or run without --claude-settings host")
    return found
