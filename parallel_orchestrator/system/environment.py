"""What of this process's environment its children get, and what in it is secret."""

from __future__ import annotations

import re
from collections.abc import Mapping

_ALWAYS = re.compile(
    r"PATH|HOME|USER|LOGNAME|TZ|LANG|LANGUAGE|LC_[A-Z]+|TMPDIR|TEMP|TMP|CLAUDE_CONFIG_DIR|LD_LIBRARY_PATH|DYLD_[A-Z_]+"
    r"|PYTHON(?!STARTUP|INSPECT|BREAKPOINT)[A-Z0-9]+"
)
"""What an interpreter needs to start and to use the person's language, and where `--claude-settings host` looks."""

_FOR_NETWORK = re.compile(
    r"(?i:HTTPS?_PROXY|NO_PROXY)|SSL_CERT_(?:FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|PIP_[A-Z_]+"
)
"""Proxies and certificates. A proxy's address may hold a password, so only what connects to the outside gets them."""

_SECRET_NAME = re.compile(
    r"(?i:(?:^|_)(?:API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|PAT)(?:_ID)?$)"
)
_SECRET_VALUE = re.compile(r"(?!/)(?=.*[0-9])(?=.*[A-Za-z])[!-~]{16,}")
"""What could be a key: long, printable ASCII, letters and digits, no path. Words that texts may hold are left alone."""

_PAYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")


def clean_environment(environment: Mapping[str, str], *, network: bool = False) -> dict[str, str]:
    """What a child process gets: names from a list, so that no credential passes whatever its name is.

    `network`: it connects to the outside, and gets proxies and certificates too.
    """
    return {
        name: value
        for name, value in environment.items()
        if _ALWAYS.fullmatch(name) or (network and _FOR_NETWORK.fullmatch(name))
    }


def names_secret(name: str) -> bool:
    """Whether a variable or a setting of that name would hold a credential."""
    return _SECRET_NAME.search(name) is not None


def secret_values(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Values that nothing may be written with: the credentials that pay, and what looks like another one."""
    return tuple(
        value.strip()
        for name, value in environment.items()
        if name in _PAYS or (names_secret(name) and _SECRET_VALUE.fullmatch(value.strip()))
    )
