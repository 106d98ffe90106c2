"""The key: how it is shown to the endpoint, and how it is kept out of everything written."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Literal, TypeVar
from urllib.parse import quote

_SHORTEST_SECRET = 12
"""A shorter value is a local server's placeholder (`ollama`); taking it out would garble answers."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Credential:
    """A key or token for the endpoint. Its value appears in no repr."""

    kind: Literal["api_key", "auth_token"]
    value: str

    def __repr__(self) -> str:
        return f"Credential({self.kind})"

    def headers(self) -> dict[str, str]:
        """An API key goes out in both headers, since servers differ in which they read; a token as Bearer only."""
        shown = {"authorization": f"Bearer {self.value}"}
        return shown if self.kind == "auth_token" else {**shown, "x-api-key": self.value}


class Redactor:
    """Takes one secret out of texts, plain and in its usual encodings."""

    def __init__(self, secret: str | None) -> None:
        self._forms: list[str] = []
        if secret and len(secret) >= _SHORTEST_SECRET:
            encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
            self._forms = list(dict.fromkeys([secret, json.dumps(secret)[1:-1], quote(secret, safe=""), encoded]))

    def text(self, text: str) -> str:
        """`text` without the secret, and without lone surrogates, which no file can hold."""
        text = text.encode("utf-8", errors="replace").decode()
        for form in self._forms:
            text = text.replace(form, "[credential]")
        return text

    def deep(self, value: Value) -> Value:
        """A JSON value without the secret in any of its texts."""
        if not self._forms:
            return value
        cleaned: Value = json.loads(self.text(json.dumps(value)))
        return cleaned
