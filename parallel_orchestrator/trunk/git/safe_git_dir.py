"""Another door into the trunk's repository: its objects and refs, under a configuration of ours alone.

    .git/view/    HEAD, config                  ours, and nothing else
                  objects, refs, packed-refs    links to those of .git

A repository's own config and attributes can name programs that git then runs: filters, merge
drivers, helpers. A command in the sandbox cannot write there; one that runs without it can, and so
can a person with plans of their own for the repository. Neither has a say in what our calls do: git
is given this folder as the repository, and it is looked at before each call.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from parallel_orchestrator.records.errors import CannotGoOn

CONFIG = """\
[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = false
\tlogallrefupdates = false
"""

_FILES = {"HEAD": "ref: refs/heads/main\n", "config": CONFIG}
_LINKS = {name: f"../{name}" for name in ("objects", "refs", "packed-refs")}


class Tampered(CannotGoOn):
    """Somebody changed what only this program writes, so that a git call of ours could run what they like."""


def safe_git_dir(repository: Path) -> Path:
    """Where the view of a repository lies."""
    return repository / "view"


def create_safe_git_dir(repository: Path) -> None:
    """Make it unless it is there, by rename: what stands under its name is whole."""
    if safe_git_dir(repository).exists():
        return
    draft = repository / "view-new"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    for name, text in _FILES.items():
        (draft / name).write_text(text)
    for name, target in _LINKS.items():
        (draft / name).symlink_to(target)
    draft.rename(safe_git_dir(repository))


def create_safe_git_dir_in(repository: Path, folder: Path) -> None:
    """Make a view in `folder`, elsewhere: for looking at a repository that has none, without changing it."""
    for name, text in _FILES.items():
        (folder / name).write_text(text)
    for name in _LINKS:
        (folder / name).symlink_to(repository / name)


def check_safe_git_dir(repository: Path) -> None:
    """Raise Tampered when it holds anything but what `make_view` put there. An absent one git itself refuses."""
    view = safe_git_dir(repository)
    try:
        # The lock files are git's own, left by a kill.
        names = {path.name for path in view.iterdir() if path.suffix != ".lock"}
        whole = (
            names == _FILES.keys() | _LINKS.keys()
            and all((view / name).read_text() == text for name, text in _FILES.items())
            and all(str((view / name).readlink()) == target for name, target in _LINKS.items())
        )
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        whole = False
    if not whole:
        raise Tampered(
            f"{view} was tampered with: something other than this program changed it, and git would run what it "
            "names. An agent without a sandbox can do that: look at what this run did, remove that folder, then resume."
        )
