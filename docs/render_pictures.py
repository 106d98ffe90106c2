"""Makes the pictures of README.md from real runs: `make pictures`, or `python docs/render_pictures.py [NAME …]`.

    kill-and-resume.svg   a shell in a pseudo-terminal: a run, kill -9, status, resume; the frames become an animation
    todo.png, shop.png    the results of the medium and the complex demo, served by themselves, in headless Chromium
    architecture.svg      the diagram "How executors work in parallel" of architecture-diagram.html

The runs replay the shipped recordings, so they need no key. Chromium has to be on the PATH, or in CHROMIUM.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path
from tempfile import TemporaryDirectory

import pyte
from terminal_svg import Frame, animation

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
BIN = Path(sys.executable).parent
COLUMNS, ROWS = 100, 26
FRAME_S = 0.2
PORT = 8765
ADDRESS = f"http://127.0.0.1:{PORT}/"
RUN = 'parallel-orchestrator "Build a todo list" --replay medium --speed 10 --output-dir todo'
"""The name of the directory is relative to the shell's own temporary folder."""


class Terminal:
    """A shell on a pseudo-terminal, and the screen that a person would see, frame by frame."""

    def __init__(self, folder: Path) -> None:
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        self.frames: list[Frame] = []
        self._began = time.monotonic()
        self._taken = 0.0
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")},
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PS1": "$ ",
            "TERM": "xterm-256color",
            "HISTFILE": "/dev/null",
        }
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environment)  # noqa: S606 - the shell that is recorded
        ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))

    def text(self) -> str:
        """What is on the screen."""
        return "\n".join(self.screen.display)

    def watch(self, until: Callable[[], bool], limit_s: float) -> None:
        """Follow the screen until something is true. TimeoutError when that takes too long."""
        end = time.monotonic() + limit_s
        while not until():
            if time.monotonic() > end:
                raise TimeoutError(f"the terminal shows:\n{self.text()}")
            if select.select([self._terminal], [], [], FRAME_S / 2)[0]:
                self._stream.feed(os.read(self._terminal, 65536))
            self._take()

    def rest(self, seconds: float) -> None:
        """Let a person read."""
        end = time.monotonic() + seconds
        self.watch(lambda: time.monotonic() >= end, seconds + 5)

    def type(self, line: str) -> None:
        """Type a line as a person does, and press Enter."""
        for character in line:
            os.write(self._terminal, character.encode())
            self.rest(0.03)
        self.rest(0.6)
        os.write(self._terminal, b"\n")

    def prompt(self) -> bool:
        """Whether the shell waits for input again."""
        return self.text().rstrip().endswith("$")

    def close(self) -> None:
        """End the shell."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._terminal)

    def _take(self) -> None:
        now = time.monotonic() - self._began
        if now - self._taken >= FRAME_S or not self.frames:
            self._taken = now
            frame = Frame.of(self.screen, now)
            if not self.frames or self.frames[-1].rows != frame.rows:
                self.frames.append(frame)


def kill_and_resume() -> None:
    """A run that is killed with kill -9 after two merges, looked at, and resumed to its end."""
    with TemporaryDirectory(prefix="pictures-") as folder:
        terminal = Terminal(Path(folder))
        try:
            terminal.watch(terminal.prompt, 10)
            terminal.type(RUN)
            terminal.watch(lambda: "[3/6]" in terminal.text() or terminal.text().count("✓") >= 3, 400)
            terminal.rest(1.0)
            subprocess.run(["pkill", "-KILL", "-f", "replay medium --speed 10 --output-dir todo"], check=True)
            terminal.watch(lambda: "Killed" in terminal.text() and terminal.prompt(), 20)
            terminal.rest(1.5)
            for command, seconds in (
                ("parallel-orchestrator status todo", 2.5),
                ("parallel-orchestrator resume todo", 4.0),
            ):
                terminal.type(command)
                terminal.rest(1.0)
                terminal.watch(terminal.prompt, 400)
                terminal.rest(seconds)
        finally:
            terminal.close()
        title = "A run is killed with kill -9, looked at with status, and resumed to its end"
        (PICTURES / "kill-and-resume.svg").write_text(animation(terminal.frames, COLUMNS, title), encoding="utf-8")


@contextmanager
def _served(project: Path, argv: list[str]) -> Iterator[None]:
    """A finished project's own server, for as long as the block runs."""
    environment = {**os.environ, "PYTHONPATH": str(project / "src")}
    with subprocess.Popen([sys.executable, *argv], cwd=project, env=environment) as server:
        try:
            _wait_for(ADDRESS)
            yield
        finally:
            server.terminate()


def _wait_for(url: str) -> None:
    for _ in range(100):
        try:
            urllib.request.urlopen(url, timeout=1).close()  # noqa: S310 - a server of this script's own
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise TimeoutError(f"nothing answers at {url}")


def _screenshot(url: str, target: Path, width: int, height: int) -> None:
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or "chromium"
    with TemporaryDirectory(prefix="pictures-") as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        size = [f"--user-data-dir={profile}", f"--window-size={width},{height}", f"--screenshot={target}"]
        subprocess.run([chromium, *flags, *quiet, *size, url], check=True, timeout=120, stderr=subprocess.DEVNULL)


def _built(name: str, folder: Path) -> Path:
    """A demo, built from its recording as fast as it goes."""
    project = folder / name
    command = [sys.executable, "orchestrator.py", "run", "--config", "configs/demo.yaml", "--only", name]
    subprocess.run([*command, "--speed", "100", "--output-dir", str(project)], cwd=ROOT, check=True)
    return project


def results() -> None:
    """The todo list with some items, and the shop with its demo products, each in a browser."""
    with TemporaryDirectory(prefix="pictures-") as folder:
        todo, shop = _built("medium", Path(folder)), _built("complex", Path(folder))
        listed = {**os.environ, "PYTHONPATH": str(todo / "src")}
        for words in (["add", "Buy milk"], ["add", "Water the plants"], ["add", "Call Ada"], ["done", "1"]):
            subprocess.run([sys.executable, "-m", "todo", *words], cwd=todo, env=listed, check=True)
        with _served(todo, ["-m", "todo", "serve", "--port", str(PORT)]):
            _screenshot(ADDRESS, PICTURES / "todo.png", 640, 460)
        sold = {**os.environ, "PYTHONPATH": str(shop / "src")}
        subprocess.run([sys.executable, "-m", "shop", "demo"], cwd=shop, env=sold, check=True)
        with _served(shop, ["-m", "shop", "serve", "--port", str(PORT)]):
            _screenshot(ADDRESS, PICTURES / "shop.png", 640, 460)


def architecture() -> None:
    """The diagram of processes and files, as a picture of its own."""
    page = (ROOT / "docs" / "architecture-diagram.html").read_text(encoding="utf-8")
    _, _, rest = page.partition('<figure id="how-executors-work-in-parallel"')
    found = re.search(r"<svg .*?</svg>", rest, re.DOTALL)
    if not found:
        raise SystemExit("architecture-diagram.html has no such diagram: run docs/render_diagrams.py")
    picture = found[0].replace(
        "background-color: transparent", "background-color: #ffffff"
    )  # also where the page is dark
    (PICTURES / "architecture.svg").write_text(picture + "\n", encoding="utf-8")


MAKERS: dict[str, Callable[[], None]] = {
    "kill-and-resume": kill_and_resume,
    "results": results,
    "architecture": architecture,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or MAKERS:
        MAKERS[name]()
