"""Several orchestrators want one directory at once. `python -m tests.reliability.contenders DIR ROUNDS`

Each round forks 2 to 8 processes, which reach the directory by different paths. All wait for one signal, then try to
own it. One JSON line a round: how many owned it, and what the others were told. The seed is printed first.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

from parallel_orchestrator.records.errors import DirectoryHeld
from parallel_orchestrator.records.scenario import Scenario
from parallel_orchestrator.store.run_directory import own

SCENARIO = Scenario(run="r", requirements="Build it", endpoint="http://x")


def contend(path: Path, go: int, result: int, done: int) -> None:
    """One contender: wait for the signal, try, tell, and hold what it got until the round is over."""
    os.read(go, 1)
    told, owned = "owner", None
    try:
        owned = own(path, SCENARIO, lambda text: None)
    except DirectoryHeld as error:
        told = f"{error.exit_code} {error}"
    os.write(result, json.dumps([os.getpid(), told]).encode() + b"\n")
    os.read(done, 1)
    if owned:
        owned.lock.release()


def one_round(paths: list[Path]) -> list[list[object]]:
    """Pid and what it was told, of each contender."""
    (go, start), (said, result), (done, end) = os.pipe(), os.pipe(), os.pipe()
    children = []
    for path in paths:
        child = os.fork()
        if not child:
            os.close(start)
            os.close(end)
            try:
                contend(path, go, result, done)
            finally:
                os._exit(0)
        children.append(child)
    os.write(start, b"x" * len(paths))
    told = b""
    while told.count(b"\n") < len(paths):
        told += os.read(said, 65536)
    os.close(end)
    for child in children:
        os.waitpid(child, 0)
    for descriptor in (go, start, said, result, done):
        os.close(descriptor)
    return [json.loads(line) for line in told.splitlines()]


def main(directory: Path, rounds: int) -> None:
    """Play the rounds."""
    seed = random.randrange(10**6)
    print(json.dumps({"seed": seed}), flush=True)
    dice = random.Random(seed)
    link = directory.with_name("link")
    link.symlink_to(directory)
    os.chdir(directory.parent)
    ways = [directory, link, Path(directory.name), Path("sub", "..", directory.name), link / "." / ".." / "link"]
    Path("sub").mkdir()
    for _ in range(rounds):
        told = one_round([dice.choice(ways) for _ in range(dice.randint(2, 8))])
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
