"""Which variables of this process's environment its children get, and which are secret."""

from __future__ import annotations

import re
from collections.abc import Mapping

_ALWAYS = re.compile(
    r"PATH|HOME|USER|LOGNAME|TZ|LANG|LANGUAGE|LC_[A-Z]+|TMPDIR|TEMP|TMP|CLAUDE_CONFIG_DIR|LD_LIBRARY_PATH|DYLD_[A-Z_]+"
    r"|PYTHON(?!STARTUP|INSPECT|BREAKPOINT)[A-Z0-9]+"
)
"""What an interpreter needs to start and to use the user's language; and the folder of `--claude-settings host`."""

_FOR_NETWORK = re.compile(
    r"(?i:HTTPS?_PROXY|NO_PROXY)|SSL_CERT_(?:FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|PIP_[A-Z_]+"
)
"""Proxies and certificates. A proxy's address may hold a password, so only processes that use the network get them."""

_SECRET_NAME = re.compile(
    r"(?i:(?:^|_)(?:API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|PAT)(?:_ID)?$)"
)
_SECRET_VALUE = re.compile(r"(?!/)(?=.*[0-9])(?=.*[A-Za-z])[!-~]{16,}")
"""Possible keys: long printable ASCII with letters and digits, no path. Other values could be words of a text."""

_PAYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")


def clean_environment(environment: Mapping[str, str], *, network: bool = False) -> dict[str, str]:
    """Return a child process's environment: only listed names, so that no credential passes under any name.

    `network`: the child uses the network, and also gets proxies and certificates.
    """
    return {
        name: value
        for name, value in environment.items()
        if _ALWAYS.fullmatch(name) or (network and _FOR_NETWORK.fullmatch(name))
    }


def names_secret(name: str) -> bool:
    """Whether a variable or setting of that name may hold a credential."""
    return _SECRET_NAME.search(name) is not None


def secret_values(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the values that must not be written anywhere: the paying credentials, and others that look like keys."""
    return tuple(
        value.strip()
        for name, value in environment.items()
        if name in _PAYS or (names_secret(name) and _SECRET_VALUE.fullmatch(value.strip()))
    )
