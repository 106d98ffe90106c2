"""Where a branch stands, read without git: for those who ask often, or may not call git."""

from __future__ import annotations

from pathlib import Path

TRUNK = "refs/heads/main"


def branch_head(repository: Path, branch: str = TRUNK) -> str:
    """The id of the commit that a branch of a git repository names; "" when that cannot be read."""
    try:
        return (repository / branch).read_text().strip()
    except FileNotFoundError:
        return _packed(repository, branch)
    except (OSError, UnicodeDecodeError):
        return ""


def _packed(repository: Path, branch: str) -> str:
    try:
        rows = (repository / "packed-refs").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    return next((row.partition(" ")[0] for row in rows if row.endswith(f" {branch}")), "")
