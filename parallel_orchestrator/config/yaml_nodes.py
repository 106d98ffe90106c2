"""The nodes of a YAML text, each with its place, and how to find one of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True, order=True)
class Place:
    """Where something stands: line and column from 1, and how many characters of its line it takes."""

    line: int
    column: int
    length: int = 1


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, and where."""

    place: Place
    message: str
    ends: bool = False
    """Nothing after it was read, so it is shown however many there are."""


@dataclass
class Node:
    """A scalar, a sequence or a mapping. `value` is a plain value, a list of nodes, or a list of (key, value) nodes.

    A node of kind "unread" stands for text that could not be read; a fault names its place.
    """

    place: Place
    value: Any
    kind: str = "scalar"
    complete: bool = True
    """Its end was read, too."""

    @cached_property
    def keys(self) -> dict[str, tuple[Node, Node]]:
        """Of a mapping that is whole: by name, where the key stands first, and its value, which is the last one."""
        found: dict[str, tuple[Node, Node]] = {}
        for key, value in self.value:
            if isinstance(key.value, str):
                found[key.value] = (found.get(key.value, (key,))[0], value)
        return found


def plain(node: Node) -> Any:
    """The node's value as dicts, lists and scalars."""
    if node.kind == "sequence":
        return [plain(part) for part in node.value]
    if node.kind == "mapping":
        return {key.value: plain(value) for key, value in node.value if isinstance(key.value, str)}
    return node.value


def find(node: Node, path: tuple[str | int, ...]) -> Iterator[Node]:
    """The nodes along a path of keys and indices, `node` first; as far as the path leads."""
    yield node
    if not path:
        return
    if node.kind == "sequence" and isinstance(path[0], int) and path[0] < len(node.value):
        yield from find(node.value[path[0]], path[1:])
    elif node.kind == "mapping":
        _, below = node.keys.get(str(path[0]), (None, None))
        if below is not None:
            yield from find(below, path[1:])


def key_of(node: Node, name: str) -> Node | None:
    """The key called `name` of a mapping."""
    return node.keys.get(name, (None,))[0] if node.kind == "mapping" else None


def earlier(node: Node) -> Iterator[tuple[tuple[str | int, ...], Node]]:
    """For each repeated key, every value but the last: its path, and a tree of only what leads to it.

    In that tree a list has one item, so that indices are 0.
    """
    if node.kind == "sequence":
        for part in node.value:
            for path, alone in earlier(part):
                yield (0, *path), Node(node.place, [alone], "sequence")
    elif node.kind == "mapping":
        for key, value in node.value:
            if not isinstance(key.value, str):
                continue
            if value is not node.keys[key.value][1]:
                yield (key.value,), Node(node.place, [(key, value)], "mapping")
            for path, alone in earlier(value):
                yield (key.value, *path), Node(node.place, [(key, alone)], "mapping")
