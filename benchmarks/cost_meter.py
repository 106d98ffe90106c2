"""A model that says as much as a real one did, behind a server that counts as the API's prompt cache does.

What counts, from the API's documentation: a prefix ends at a breakpoint (a block with cache_control; cache_control at
the top level stands at the last block) and is cached from there when it has the model's smallest number of tokens.
A request reads the longest prefix that is cached by then, looking back twenty blocks from each of its breakpoints,
and writes the rest up to its last breakpoint. An entry can be read when the answer to its request begins; it lives
for five minutes or an hour from its last use. Order: tools, system, messages.

A token is four characters of the JSON that is sent. To that comes what the API adds for its own tools, whose schemas
are not in the request: `ADDED`. Everything is counted without it, too.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.stack_model import TURNS, Shape, turn_of
from benchmarks.stack_model import VARIABLE as SHAPE
from tests.fake_api import Answer, Block, Body

METER = "BENCHMARK_METER"
"""In the environment of the fake server: the file that the counts go to."""
SAID = "BENCHMARK_SAID"
"""In the environment of the fake server: characters that the model says in the tasks' first two turns, as JSON."""
MINIMA = (512, 1024, 2048, 4096)
"""Tokens of the shortest prefix that models cache."""
ADDED = 346 + 245 + 700
"""Tokens that the API puts before every prompt: its words on the use of tools, and its definitions of bash and of the
editor, as Anthropic documented them for Claude 4 (for later models it documents none)."""
BARE = "bare"
"""Marks counts without `ADDED`."""
LIFETIMES = {"5m": 300.0, "1h": 3600.0}
LOOK_BACK = 20

Json = dict[str, Any]


@dataclass
class Cache:
    """The prompt cache of one model. Times are those of one clock, in seconds."""

    minimum: int
    added: int = 0
    """Tokens before the first block, which are cached as part of it."""
    _entries: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    """By digest of the prefix: from when it can be read, until when, and for how long each use keeps it."""

    def count(self, body: Body, now: float, begins: float) -> Json:
        """The input's usage for a request at `now` whose answer begins at `begins`."""
        blocks = list(_blocks(body, self.added))
        total = blocks[-1].end if blocks else 0
        marks = [number for number, block in enumerate(blocks) if block.lifetime]
        found = max((n for mark in marks for n in self._readable(blocks, mark, now)), default=-1)
        read = blocks[found].end if found >= 0 else 0
        if found >= 0:
            self._keep(blocks[found].digest, now)
        written = dict.fromkeys(LIFETIMES, 0)
        covered = read
        for mark in marks:
            block = blocks[mark]
            if mark > found and block.end >= self.minimum:
                lives = LIFETIMES[block.lifetime]
                self._entries.setdefault(block.digest, (begins, begins + lives, lives))
                written[block.lifetime] += block.end - covered
                covered = block.end
        return {
            "input_tokens": total - covered,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": sum(written.values()),
            "cache_creation": {f"ephemeral_{name}_input_tokens": count for name, count in written.items()},
        }

    def _readable(self, blocks: list[_Block], mark: int, now: float) -> Iterator[int]:
        for number in range(mark, max(-1, mark - LOOK_BACK), -1):
            since, until, _ = self._entries.get(blocks[number].digest, (now + 1, now, 0.0))
            if since <= now < until:
                yield number

    def _keep(self, digest: str, now: float) -> None:
        since, _, lives = self._entries[digest]
        self._entries[digest] = (since, now + lives, lives)


@dataclass(frozen=True)
class _Block:
    digest: str
    """Of the prefix that ends here."""
    end: int
    """Tokens of that prefix."""
    lifetime: str
    """Of the breakpoint here; empty where there is none."""


def _blocks(body: Body, added: int = 0) -> Iterator[_Block]:
    """The parts of a request in the cache's order, behind so many tokens that are added."""
    digest, characters = hashlib.sha256(str(body["model"]).encode()), 0
    parts: list[tuple[str, Any]] = [("tools", tool) for tool in body.get("tools") or []]
    parts += [("system", block) for block in body.get("system") or []]
    parts += [(message["role"], block) for message in body["messages"] for block in message["content"]]
    for number, (place, part) in enumerate(parts):
        told = json.dumps({name: value for name, value in part.items() if name != "cache_control"}, sort_keys=True)
        digest.update(f"{place}\n{told}\n".encode())
        characters += len(told)
        mark = part.get("cache_control") or (body.get("cache_control") if number == len(parts) - 1 else None)
        yield _Block(digest.hexdigest(), added + tokens(characters), mark.get("ttl", "5m") if mark else "")


def tokens(characters: int) -> int:
    """Of that many characters."""
    return -(-characters // 4)


_caches = {str(minimum): Cache(minimum, ADDED) for minimum in MINIMA}
_caches |= {f"{minimum} {BARE}": Cache(minimum) for minimum in MINIMA}


def answer(body: Body) -> Answer:
    """The fake server's script: the task's turn, its input counted for every minimum, its usage for the smallest."""
    shape = Shape.of_json(os.environ[SHAPE])
    found = re.search(r"# Your task: task_(\d+)", json.dumps(body["messages"][0]))
    number = int(found.group(1)) if found else 0
    turn = min(TURNS, 1 + sum(message["role"] == "assistant" for message in body["messages"]))
    said = _as_long_as(turn_of(shape, number, turn), json.loads(os.environ[SAID])[number - 1], turn)
    output, now, latency = tokens(len(json.dumps(said))), time.monotonic(), shape.latency(number, turn)
    counts = {name: cache.count(body, now, now + latency) for name, cache in _caches.items()}
    shared = [block.end for block in _blocks({**body, "messages": []}, ADDED)][-1]
    with Path(os.environ[METER]).open("a") as file:
        line = {"task": number, "turn": turn, "shared": shared, "output": output, "counts": counts}
        file.write(json.dumps(line) + "\n")
    return Answer(said, latency_s=latency, usage={**counts[str(MINIMA[0])], "output_tokens": output})


def _as_long_as(blocks: list[Block], wanted: list[int], turn: int) -> list[Block]:
    """The blocks, the last file's text made longer until they are `wanted` characters together."""
    if turn > len(wanted):
        return blocks
    arguments = blocks[-1]["input"]
    missing = wanted[turn - 1] - len(json.dumps(blocks))
    line = "<!-- This part is described as fully as a real one is. -->\n"
    if arguments["path"].endswith(".py"):
        line = "# A line that stands for one of the code that a real model writes here.\n"
    longer = {**arguments, "file_text": arguments["file_text"] + line * max(0, round(missing / (len(line) + 1)))}
    return [*blocks[:-1], {**blocks[-1], "input": longer}]
