"""Gives Claude Code the user's own settings, for runs with `claude_settings: host`.

It gets read-only copies in a folder that is deleted when it ends:

    settings.json   the user's settings, without what would lead it away from the gateway: credentials and their
                    helpers, variables that the session sets or that name a secret, sandboxes, plugins
    CLAUDE.md       the user's memory
    mcp.json        the user's MCP servers that are programs; others need a network, which the sandbox lacks

Settings of projects are left out, also of the one being built. Redaction removes credentials from the first two files.
The servers need theirs. Redaction knows those by value and keeps them out of transcript and log.
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
"""Settings that choose the credential or the model, or that cannot work in the sandbox."""
_OURS = re.compile(r"(ANTHROPIC|CLAUDE|AWS|GOOGLE|AZURE|OTEL|DISABLE|ENABLE|MAX|MCP)_.*|\w*_PROXY", re.IGNORECASE)
"""Variables that control Claude Code itself."""


@dataclass(frozen=True)
class HostSettings:
    """The user's settings at this moment."""

    settings: dict[str, Any] = field(default_factory=dict)
    memory: str = ""
    servers: dict[str, Any] = field(default_factory=dict, repr=False)
    """MCP servers that are programs, by name. They may hold credentials."""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> HostSettings:
        """Reads the settings of the user with this environment. Raises UsageError if a file cannot be read."""
        configured = environment.get("CLAUDE_CONFIG_DIR")
        home = Path(environment.get("HOME", "/"))
        folder = Path(configured) if configured else home / ".claude"
        state = _json((folder if configured else home) / ".claude.json")
        servers = {name: server for name, server in _table(state, "mcpServers").items() if _is_program(server)}
        return cls(_json(folder / "settings.json"), _text(folder / "CLAUDE.md"), servers)

    def describe(self) -> str:
        """Returns what there is, for people."""
        named = f" and MCP servers {', '.join(sorted(self.servers))}" if self.servers else ""
        parts = [word for word, there in (("settings", self.settings), ("CLAUDE.md", self.memory)) if there]
        return f"your own {' and '.join(parts) or 'settings (there are none)'}{named}"

    def write(self, folder: Path, ours: Collection[str]) -> None:
        """Write the copies. `ours`: variables that the session sets, so that the user's settings may not."""
        # Before the servers start: from then on their output may quote a credential.
        redact.know(*(value for server in self.servers.values() for value in _secrets(server)))
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
    """Link the copies into Claude Code's configuration directory. `copies`: their folder as Claude Code sees it."""
    for name in (SETTINGS, MEMORY):
        place = config / name
        if place.is_dir() and not place.is_symlink():  # a command of the last start may have replaced it
            remove_folder(place)
        place.unlink(missing_ok=True)
        place.symlink_to(f"{copies}/{name}")


def _is_program(server: Any) -> bool:
    return isinstance(server, dict) and bool(server.get("command")) and server.get("type", "stdio") == "stdio"


def _secrets(server: Mapping[str, Any]) -> tuple[str, ...]:
    return secret_values({name: str(value) for name, value in _table(server, "env").items()})


def _table(holder: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = holder.get(name)
    return value if isinstance(value, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}; fix it, or run without --claude-settings host") from error


def _json(path: Path) -> dict[str, Any]:
    text = _text(path)
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UsageError(f"{path} is no JSON object; fix it, or run without --claude-settings host")
    return value
