"""What a person changed in the output directory and did not commit.

The output directory holds the trunk's checkout, which a person may edit. Only commits count. Other edits are reported
and never lost: they are copied aside where the trunk has to write.

A killed checkout leaves files of older commits, and one file that is partly written. Neither is an edit.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from parallel_orchestrator.records.plan import PROJECT_ROOTS
from parallel_orchestrator.system.folders import files_below
from parallel_orchestrator.trunk.changes.folder import CACHES, blob_id, read_plain
from parallel_orchestrator.trunk.git.objects import LINK
from parallel_orchestrator.trunk.git.repository import BRANCH, Repository

log = logging.getLogger(__name__)

_LARGEST = 2**30
_KEPT = "edits-"


@dataclass(frozen=True)
class Edits:
    """Paths, sorted."""

    changed: list[str]
    """Files of the trunk whose content belongs to no commit."""
    missing: list[str]
    """Files of the trunk that are gone."""
    new: list[str]
    """Files in the project's folders that the trunk does not have."""


def check_out(repository: Repository, since: str = "") -> None:
    """Update the trunk's files in the output directory, within `Repository.alone`.

    `since`: the commit that is checked out now, if known. Uncommitted edits stay. Where the trunk has to write, they
    are copied to a folder edits-N first.
    """
    # The quick way writes only what changed and refuses edited files. It needs the commit that is checked out, unknown
    # after a kill: then every file is compared, and edits are copied aside before they are overwritten.
    if since and repository.advance(since):
        return
    keep_edits(repository)
    repository.check_out()


def keep_edits(repository: Repository) -> None:
    """Copy uncommitted edits to a folder edits-N, before they are overwritten."""
    if (repository.git.repository / "index").exists() and (edited := find_edits(repository).changed):
        folder = _keep_aside(repository.git.work_tree, edited)
        log.warning("uncommitted edits were copied to %s before they were overwritten: %s", folder, ", ".join(edited))


def find_edits(repository: Repository) -> Edits:
    """Compare the output directory with the trunk and with git's index. Changes nothing; needs the safe git-dir."""
    root = repository.git.work_tree
    head = {path: entry.id for path, entry in repository.tree(BRANCH).items() if entry.mode != LINK}
    index = _index(repository)
    changed, missing = [], []
    # Head and index together: a killed checkout has written some of the head's files, and the index names the others.
    for path in sorted(head.keys() | index.keys()):
        content = read_plain(root / path, _LARGEST)
        if content is None:
            if path in head and index.get(path) == head[path] and not os.path.lexists(root / path):
                missing.append(path)
            continue
        name = blob_id(content)
        if name != head.get(path) and not _left_by_a_kill(repository, path, content, index.get(path), head.get(path)):
            changed.append(path)
    known = head.keys() | index.keys()
    below = {path.relative_to(root).as_posix() for top in PROJECT_ROOTS for path in files_below(root / top)}
    new = sorted(path for path in below - known if not _is_cache(path))
    return Edits(changed, missing, new)


def _index(repository: Repository) -> dict[str, str]:
    listed = os.fsdecode(repository.git("ls-files", "--stage", "-z"))
    rows = (row.partition("\t") for row in listed.split("\0") if row)
    return {path: about.split(" ")[1] for about, _, path in rows}


def _left_by_a_kill(repository: Repository, path: str, content: bytes, index: str | None, head: str | None) -> bool:
    """Whether a killed checkout explains a content: it is an older commit's, or the beginning of the new one's."""
    # git writes the file first and its index entry last. While they differ, that checkout was killed.
    if index == head:
        return False  # the checkout of this file was complete
    if head is not None and next(iter(repository.objects.blobs([head]))).startswith(content):
        return True
    name = blob_id(content)
    commits = repository.log(repository.head())
    return any((entry := repository.tree(commit.id).get(path)) and entry.id == name for commit in reversed(commits))


def _is_cache(path: str) -> bool:
    return path.endswith(".pyc") or any(part in CACHES for part in path.split("/"))


def _keep_aside(root: Path, paths: Sequence[str]) -> Path:
    """Copy files into a new folder edits-N of the output directory. Returns that folder."""
    taken = [path.name.removeprefix(_KEPT) for path in root.glob(f"{_KEPT}*")]
    folder = root / f"{_KEPT}{max((int(name) for name in taken if name.isdecimal()), default=0) + 1}"
    for path in paths:
        target = folder / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy2(root / path, target, follow_symlinks=False)
    return folder
