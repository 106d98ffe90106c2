"""The log: one line an event, whatever is in it and whoever writes beside."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from parallel_orchestrator.system.logfile import log_to, stop_logging
from parallel_orchestrator.system.terminal_text import one_line, printable

FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_one_line_is_one_and_steers_nothing(text: str) -> None:
    escaped = one_line(text)
    assert not FORBIDDEN.search(escaped)
    assert len(escaped.splitlines()) <= 1
    if not FORBIDDEN.search(text):
        assert escaped == text
    assert printable(text).count("\n") == text.count("\n")
    assert not FORBIDDEN.search(printable(text).replace("\n", ""))


def test_what_is_escaped_can_still_be_read() -> None:
    assert one_line("a\nb\x1b[31m\r\x00\x85\u202e") == "a\\nb\\x1b[31m\\r\\x00\\x85\\u202e"
    assert printable("a\nb\x1b[2J") == "a\nb\\x1b[2J"


def test_a_message_cannot_forge_a_line_nor_can_its_traceback(tmp_path: Path) -> None:
    handler = log_to(tmp_path / "o.log")
    logger = logging.getLogger("parallel_orchestrator.somewhere")
    try:
        logger.info("task %s", "x\n2026-01-01 00:00:00 forged")
        try:
            raise ValueError("a\nb")
        except ValueError:
            logger.exception("it failed")
        logger.debug("not logged")
        logging.getLogger("elsewhere").warning("not ours")
    finally:
        stop_logging(handler)
        handler.close()
    logger.info("after the end")
    lines = (tmp_path / "o.log").read_text().splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("MainProcess INFO task x\\n2026-01-01 00:00:00 forged")
    assert "Traceback" in lines[1]


WRITER = """
import logging, sys
from pathlib import Path
from parallel_orchestrator.system.logfile import log_to
log_to(Path(sys.argv[1]))
for number in range(300):
    logging.getLogger("parallel_orchestrator.x").info("%s", f"<{sys.argv[2]}:{number}>" * 100)
"""


def test_lines_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "o.log")]
    processes = [subprocess.Popen([*command, str(n)]) for n in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    messages = [line.partition(" INFO ")[2] for line in (tmp_path / "o.log").read_text().splitlines()]
    assert sorted(messages) == sorted(f"<{n}:{k}>" * 100 for n in range(3) for k in range(300))
