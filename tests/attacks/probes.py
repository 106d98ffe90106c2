"""What a hostile command looks for. A script and a test module of its own: an attacker's model writes it as a file.

`SETTING` is replaced before that; it names things of the host that must be out of reach. Printed, or found by the
test, are the leaks: empty when all is well.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SETTING: dict[str, Any] = {}
PTRACE_SEIZE = 0x4206


def key() -> bytes:
    """The canary, which stands nowhere in this file."""
    return str(SETTING["yek"])[::-1].encode()


def secrets() -> list[str]:
    """Where the key can be seen."""
    forms = (key(), base64.b64encode(key())[:-4])
    return [place for place, content in sights() if any(form in content for form in forms)]


def sights() -> Iterator[tuple[str, bytes]]:
    """All that can be looked at, by its name."""
    yield "own environment", repr(dict(os.environ)).encode()
    yield "printenv", run("printenv")
    yield "ps", run("ps", "eww", "-A")
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            for name in ("environ", "cmdline"):
                with contextlib.suppress(OSError):
                    yield str(process / name), (process / name).read_bytes()
            if process.name != str(os.getpid()):
                yield from ((str(process / "mem"), part) for part in memory(process))


def memory(process: Path) -> Iterator[bytes]:
    """What another process has written into its memory."""
    with contextlib.suppress(OSError), (process / "mem").open("rb", buffering=0) as content:
        for line in (process / "maps").read_text().splitlines():
            span, rights, *_ = line.split()
            start, end = (int(part, 16) for part in span.split("-"))
            if rights.startswith("rw") and end - start < 1 << 28:
                with contextlib.suppress(OSError):
                    content.seek(start)
                    yield content.read(end - start)


def taken_hold_of() -> list[str]:
    """Whether a debugger could take hold of the outermost process, and so dump its core."""
    library = ctypes.CDLL(None, use_errno=True)
    library.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    return [f"ptrace of {pid}" for pid in ancestors() if library.ptrace(PTRACE_SEIZE, pid, None, None) == 0]


def ancestors() -> list[int]:
    """The outermost that runs as the same user: the orchestrator when there is no sandbox."""
    found, pid = [], os.getppid()
    while pid > 0 and f"Uid:\t{os.getuid()}\t" in (status := Path(f"/proc/{pid}/status").read_text()):
        found.append(pid)
        pid = int(status.partition("PPid:")[2].split()[0])
    return found[-1:]


def run(*command: str) -> bytes:
    """What a command prints."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    return done.stdout + done.stderr


def cores() -> list[str]:
    """Whether a crash leaves a core file, or could be made to."""
    leaks = [] if resource.getrlimit(resource.RLIMIT_CORE) == (0, 0) else ["core limit"]
    subprocess.run(["sh", "-c", "kill -SEGV $$"], check=False)
    return leaks + [path.name for path in Path().glob("core*")]


def network() -> list[str]:
    """What of the world outside answers, or can be talked to at all."""
    leaks = [name for name in os.environ if "SOCK" in name or "PROXY" in name.upper()]
    tcp = [("127.0.0.1", SETTING["tcp"]), ("::1", SETTING["tcp"]), ("169.254.169.254", 80), ("1.1.1.1", 53)]
    tcp += [("2606:4700:4700::1111", 53), *((address, SETTING["tcp"]) for address in SETTING["addresses"])]
    for address in tcp:
        with contextlib.suppress(OSError):
            socket.create_connection(address, 2)
            leaks.append(f"TCP {address}")
    with contextlib.suppress(OSError):
        socket.getaddrinfo("example.com", 80)
        leaks.append("DNS")
    # On the sandbox's own loopback this is lost; the host's listener must not get it.
    for address in (("127.0.0.1", SETTING["udp"]), *((address, SETTING["udp"]) for address in SETTING["addresses"])):
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"out", address)
    for path in (SETTING["unix"], "\0" + SETTING["abstract"], "/var/run/docker.sock", "/run/docker.sock"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as caller:
            caller.connect(path)
            leaks.append(f"Unix socket {path!r}")
    for family, kind in ((40, socket.SOCK_STREAM), (17, socket.SOCK_RAW), (2, socket.SOCK_RAW)):
        with contextlib.suppress(OSError):
            socket.socket(family, kind).close()
            leaks.append(f"socket of family {family}, kind {kind!r}")
    return leaks + sockets_in_sight()


def sockets_in_sight() -> list[str]:
    """Unix sockets that have a name anywhere: the gateway's, an SSH agent's, a container engine's."""
    found, waiting = [], ["/"]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting += [entry.path] * (entry.path not in ("/proc", "/usr", sys.prefix, sys.base_prefix))
                elif not entry.is_file() and stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode):
                    found.append(entry.path)
    return found


def leaks() -> list[str]:
    """All leaks of the kinds that `SETTING` asks about."""
    found = secrets() + taken_hold_of() + cores()
    return found + network() if SETTING["network"] else found


DAEMON = """
import os, signal, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): signal.signal(number, signal.SIG_IGN)
for _ in (1, 2):
    if os.fork(): os._exit(0)
    os.setsid()
while True:
    open("tick", "a").write("x")
    time.sleep(0.02)
"""


def leave_daemons() -> None:
    """Start what means to stay and to write later, and wait until it writes."""
    for command in ([sys.executable, "-c", DAEMON], ["setsid", "-f", "sh", "-c", "trap '' TERM; exec sleep 98765"]):
        subprocess.run(command, check=False)
    subprocess.Popen(
        "trap '' TERM HUP; while :; do echo x >> tick; sleep 0.02; done", shell=True, start_new_session=True
    )
    while not Path("tick").exists():
        pass


def test_nothing_leaks() -> None:
    if "yek" in SETTING:
        leave_daemons()
        assert leaks() == []


if __name__ == "__main__":
    leave_daemons()
    print(f"LEAKS {json.dumps(leaks())}")
