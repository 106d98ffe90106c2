"""A git-dir for our own calls: the trunk's objects and refs, with only our configuration.

    .git/view/    HEAD, config                  ours, nothing else
                  objects, refs, packed-refs    links to those of .git

A repository's config and attributes can name programs that git runs: filters, merge drivers, helpers. A command in the
sandbox cannot write them; a command without it can, and so can a person. Neither affects our calls: git gets this
folder as its git-dir, and each call checks it first.
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
    """Something changed a file that only this program writes, so that our git call could run another program."""


def safe_git_dir(repository: Path) -> Path:
    """Return the path of a repository's safe git-dir."""
    return repository / "view"


def create_safe_git_dir(repository: Path) -> None:
    """Create it unless it exists, by rename: under its name it is always complete."""
    if safe_git_dir(repository).exists():
        return
    # By rename, because `check_safe_git_dir` of another process may look at any moment: it finds all or nothing.
    draft = repository / "view-new"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    for name, text in _FILES.items():
        (draft / name).write_text(text)
    for name, target in _LINKS.items():
        (draft / name).symlink_to(target)
    draft.rename(safe_git_dir(repository))


def create_safe_git_dir_in(repository: Path, folder: Path) -> None:
    """Create one in `folder`, to read a repository that has none without changing it."""
    for name, text in _FILES.items():
        (folder / name).write_text(text)
    for name in _LINKS:
        (folder / name).symlink_to(repository / name)


def check_safe_git_dir(repository: Path) -> None:
    """Raise Tampered when it differs from what `create_safe_git_dir` made. Git itself refuses an absent one."""
    view = safe_git_dir(repository)
    try:
        # A killed git leaves lock files.
        names = {path.name for path in view.iterdir() if path.suffix != ".lock"}
        # Exactly these files with exactly this content: one more file, such as info/attributes, could name a filter.
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
