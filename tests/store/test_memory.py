"""Whose count says that the kernel killed for lack of memory, and how commands make room for one that must be alone."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from parallel_orchestrator.system import memory
from parallel_orchestrator.system.memory import Room, killed_since, kills, lacking, memory_there
from tests.gateway.support import wait_until


def _machine(folder: Path, own: str = "", vmstat: int | None = None) -> tuple[Path, Path]:
    """A made /proc and /sys/fs/cgroup."""
    proc, groups = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text(own)
    (proc / "meminfo").write_text("MemTotal:  4194304 kB\n")
    if vmstat is not None:
        (proc / "vmstat").write_text(f"nr_free_pages 1\noom_kill {vmstat}\nnuma_hit 9\n")
    return proc, groups


def test_the_unified_group_s_count_and_limit_are_read(tmp_path: Path) -> None:
    proc, groups = _machine(tmp_path, "0::/user/me\n", vmstat=9)
    (groups / "user/me").mkdir(parents=True)
    (groups / "user/me/memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert kills(proc, groups) == {"group": 2, "machine": 9}
    assert memory_there(proc, groups) == 4 * 2**30
    (groups / "user/me/memory.max").write_text("max\n")
    assert memory_there(proc, groups) == 4 * 2**30
    (groups / "user/me/memory.max").write_text(f"{2**30}\n")
    assert memory_there(proc, groups) == 2**30


def test_the_old_hierarchy_s_count_is_read(tmp_path: Path) -> None:
    proc, groups = _machine(tmp_path, "9:name=systemd:/\n4:memory:/box\n0::/\n")
    (groups / "memory/box").mkdir(parents=True)
    (groups / "memory/box/memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
    (groups / "memory/box/memory.limit_in_bytes").write_text("1048576\n")
    assert kills(proc, groups) == {"group": 5}
    assert memory_there(proc, groups) == 2**20


def test_where_nothing_counts_nothing_is_known(tmp_path: Path) -> None:
    assert kills(*_machine(tmp_path)) == {}
    assert kills(tmp_path / "none", tmp_path / "none") == {}
    assert memory_there(tmp_path / "none", tmp_path / "none") == 0


@pytest.mark.parametrize(
    ("after", "code", "starved"),
    [
        ({"group": 1, "machine": 5}, 137, False),
        ({"group": 2, "machine": 6}, 137, True),
        ({"group": 2, "machine": 6}, 1, True),  # a child of it was killed, say
        ({"group": 2, "machine": 6}, 0, False),
        ({"group": 1, "machine": 6}, 1, False),  # somebody else's process
        ({"group": 1, "machine": 6}, 137, True),
        ({}, 137, False),
    ],
)
def test_a_bad_end_and_a_risen_count_belong_together(
    monkeypatch: pytest.MonkeyPatch, after: dict[str, int], code: int, starved: bool
) -> None:
    monkeypatch.setattr(memory, "kills", lambda: after)
    assert killed_since({"group": 1, "machine": 5}, code) is starved


def test_commands_run_together_but_not_beside_one_that_is_alone(tmp_path: Path) -> None:
    rooms = [Room() for _ in range(3)]
    waited: list[int] = []
    for number, room in enumerate(rooms):
        room.use(tmp_path, 3)
        room.on_wait = lambda number=number: waited.append(number)  # type: ignore[misc]
    with rooms[0].shared(), rooms[1].shared():
        order: list[str] = []

        def alone() -> None:
            with rooms[2].alone(), rooms[2].shared():
                order.append("alone")

        def late() -> None:
            with rooms[1].shared():
                order.append("late")

        first = threading.Thread(target=alone)
        first.start()
        wait_until(lambda: waited == [2])
        second = threading.Thread(target=late)
        second.start()
        wait_until(lambda: waited == [2, 1])  # it does not get in before the one that waits
        assert order == []
    first.join(10)
    second.join(10)
    assert order == ["alone", "late"]


def test_without_a_folder_nobody_waits(tmp_path: Path) -> None:
    room = Room()
    with room.alone(), room.shared():
        room.use(tmp_path / "gone", 2)
    with room.shared(), room.alone():
        pass


def test_the_error_says_how_much_memory_is_wanted() -> None:
    told = str(lacking("an agent's command", 3 * 2**30 // 2, 5))
    assert "an agent's command" in told
    assert "1.5 GiB, and 5 at once would need 7.5 GiB" in told
    assert "Resume with fewer --max-executors, or with more memory" in told
