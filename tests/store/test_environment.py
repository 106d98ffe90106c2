"""Which variables a child process gets, and which values are secret."""

from __future__ import annotations

import os
import subprocess
import sys

from parallel_orchestrator.system.environment import clean_environment, names_secret, secret_values

ALL = {
    "PATH": "/usr/bin",
    "HOME": "/home/me",
    "LC_ALL": "C.UTF-8",
    "PYTHONPATH": "/project",
    "ANTHROPIC_API_KEY": "short-but-it-pays",
    "ANTHROPIC_CUSTOM_HEADERS": "x-key: 0123456789abcdef",
    "DATABASE_URL": "postgres://me:0123456789abcdef@host/db",
    "GITHUB_TOKEN": "gh-0123456789abcdef",
    "AWS_ACCESS_KEY_ID": "aws-0123456789abcdef",
    "SSH_AUTH_SOCK": "/tmp/ssh-0123456789/agent.1",
    "SIGNING_KEY": "/home/me/keys/signing-key-01.pem",
    "DJANGO_SECRET": "development",
    "COLOUR_TOKEN": "a-word-without-any-digit",
    "PYTHONSTARTUP": "/home/me/start.py",
    "HTTPS_PROXY": "http://me:password@proxy",
    "no_proxy": "localhost",
    "SSL_CERT_FILE": "/etc/ca.pem",
    "SSLKEYLOGFILE": "/tmp/keys",
    "PYTHONUTF8": "1",
}


def test_a_child_gets_what_is_on_the_list_and_nothing_else() -> None:
    least = {"PATH", "HOME", "LC_ALL", "PYTHONPATH", "PYTHONUTF8"}
    assert clean_environment(ALL).keys() == least
    assert clean_environment(ALL, network=True).keys() == least | {"HTTPS_PROXY", "no_proxy", "SSL_CERT_FILE"}


def test_a_python_starts_with_it() -> None:
    command = [sys.executable, "-c", "import anthropic, ssl"]
    subprocess.run(command, env=clean_environment(os.environ), check=True)


def test_secret_are_those_that_pay_and_what_looks_like_another() -> None:
    assert secret_values(ALL) == ("short-but-it-pays", "gh-0123456789abcdef", "aws-0123456789abcdef")


def test_names_of_secrets() -> None:
    assert all(map(names_secret, ["api_key", "apikey", "ANTHROPIC_AUTH_TOKEN", "password", "executor_token", "key"]))
    assert not any(map(names_secret, ["max_tokens", "monkey", "keyboard", "author", "requirements", "output_dir"]))
