"""Merges a change onto the trunk's head without writing any file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from parallel_orchestrator.trunk.git.objects import Tree, TreeEntry
from parallel_orchestrator.trunk.git.repository import Repository

OURS = "the trunk"
THEIRS = "your change"
"""The names of the two sides in conflict markers. Only this program uses them, so the markers can be found."""


@dataclass(frozen=True)
class Merge:
    """A change merged onto a head."""

    tree: Tree
    conflicts: tuple[str, ...]
    """What could not be merged, a sentence each; empty when the merge is clean."""


def merge(repository: Repository, tree: Tree, base: str, head: str) -> Merge:
    """Three-way merge of `tree`, which was made from commit `base`, onto commit `head`."""
    # Three ways, quickest first: nothing landed meanwhile; no path was changed by both; git merges lines.
    if base == head:
        return Merge(tree, ())
    if (plain := _by_path(repository.tree(base), repository.tree(head), tree)) is not None:
        return Merge(plain, ())
    change = repository.commit(repository.objects.write_tree(tree), base, "submission", {})
    code, output = repository.git.outcome("merge-tree", "--write-tree", "-z", "--messages", head, change, accept=(0, 1))
    merged, _, rest = os.fsdecode(output).partition("\0")
    entries = repository.tree(merged)
    if code == 0:
        return Merge(entries, ())
    files, _, messages = rest.partition("\0\0")
    names = {head: OURS, change: THEIRS}
    paths = {row.partition("\t")[2] for row in files.split("\0")}
    return Merge(_relabelled(repository, entries, paths, names), _sentences(messages, names))


def _by_path(base: Tree, ours: Tree, theirs: Tree) -> Tree | None:
    """Return the merge when each path was changed by at most one side, as nearly always. None: git has to merge."""
    merged: Tree = {}
    for path in ours.keys() | theirs.keys():
        before, our, their = base.get(path), ours.get(path), theirs.get(path)
        if before not in (our, their) and our != their:
            return None
        kept = their if our == before else our
        if kept is not None:
            merged[path] = kept
    # One side made a file where the other made a folder: only git can say what that conflict is.
    folders = {parent for path in merged for parent in _parents(path)}
    return None if folders & merged.keys() else merged


def _parents(path: str) -> list[str]:
    return [path[:end] for end, letter in enumerate(path) if letter == "/"]


def _relabelled(repository: Repository, tree: Tree, paths: set[str], names: dict[str, str]) -> Tree:
    """Name the sides in the conflict markers, as commit ids mean nothing to the model that resolves them."""
    tree = dict(tree)
    present = [path for path in paths if path in tree]
    for path, content in zip(present, repository.objects.blobs(tree[p].id for p in present), strict=True):
        tree[path] = TreeEntry(tree[path].mode, repository.objects.write("blob", _rename_sides(content, names)))
    return tree


def _rename_sides(content: bytes, names: dict[str, str]) -> bytes:
    for commit, name in names.items():
        for marker in (b"<<<<<<< ", b">>>>>>> "):
            content = content.replace(marker + commit.encode(), marker + name.encode())
    return content


def _sentences(messages: str, names: dict[str, str]) -> tuple[str, ...]:
    """Return git's messages about conflicts, each once. A record is: number of paths, the paths, kind, message."""
    fields: Sequence[str] = messages.split("\0")
    sentences = []
    while len(fields) > 3:
        count = int(fields[0])
        kind, message = fields[count + 1], fields[count + 2].strip()
        fields = fields[count + 3 :]
        if kind.startswith("CONFLICT"):
            for commit, name in names.items():
                message = message.replace(commit, name)
            sentences.append(message)
    return tuple(dict.fromkeys(sentences)) or ("the change and the trunk conflict",)
