"""What of a person's own set-up goes into a run that is to have it, without the program that uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parallel_orchestrator.claude_code.host_settings import HostSettings
from parallel_orchestrator.records.errors import UsageError


def _set_up(home: Path) -> dict[str, str]:
    (home / ".claude").mkdir()
    (home / ".claude" / "CLAUDE.md").write_text("Always answer in Latin.\n")
    servers = {"one": {"command": "one"}, "two": {"type": "sse", "url": "https://two"}, "three": "nonsense"}
    (home / ".claude.json").write_text(json.dumps({"mcpServers": servers, "numStartups": 3}))
    return {"HOME": str(home)}


def test_only_servers_that_are_programs_can_work(tmp_path: Path) -> None:
    found = HostSettings.read(_set_up(tmp_path))
    assert found.servers == {"one": {"command": "one"}}
    assert found.describe() == "your own CLAUDE.md and MCP servers one"


def test_where_nothing_is_set_up_nothing_is_read(tmp_path: Path) -> None:
    assert HostSettings.read({"HOME": str(tmp_path)}) == HostSettings()
    assert HostSettings().describe() == "your own settings (there are none)"


def test_what_leads_claude_code_elsewhere_is_left_out(tmp_path: Path) -> None:
    around = _set_up(tmp_path)
    variables = {
        "COLOUR": "blue",
        "ANTHROPIC_BASE_URL": "http://x",
        "CLAUDE_CODE_USE_BEDROCK": "1",
        "MY_API_KEY": "k",
        "HTTPS_PROXY": "http://x",
        "BASH_DEFAULT_TIMEOUT_MS": "1",
        "DISABLE_TELEMETRY": "1",
    }
    settings = {
        "apiKeyHelper": "x",
        "awsAuthRefresh": "x",
        "model": "opus",
        "forceLoginMethod": "console",
        "enabledPlugins": {},
        "sandbox": {"enabled": True},
        "language": "latin",
        "env": variables,
    }
    (tmp_path / ".claude" / "settings.json").write_text(json.dumps(settings))
    copies = tmp_path / "copies"
    copies.mkdir()
    HostSettings.read(around).write(copies, ["BASH_DEFAULT_TIMEOUT_MS"])
    assert json.loads((copies / "settings.json").read_text()) == {"language": "latin", "env": {"COLOUR": "blue"}}


@pytest.mark.parametrize("name", [".claude/settings.json", ".claude.json"])
@pytest.mark.parametrize("text", ["{broken", "[]", "[" * 100_000, "\udcff"])
def test_what_cannot_be_read_is_said(name: str, text: str, tmp_path: Path) -> None:
    around = _set_up(tmp_path)
    (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UsageError, match="fix it, or run without --claude-settings host"):
        HostSettings.read(around)
