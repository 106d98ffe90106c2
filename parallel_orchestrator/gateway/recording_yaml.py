"""YAML as recordings use it: strict when read, and written so that people can review the code in it."""

from __future__ import annotations

from typing import Any

import yaml

try:
    from yaml import CSafeDumper as _BaseDumper
    from yaml import CSafeLoader as _BaseLoader
except ImportError:  # a PyYAML without libyaml
    from yaml import SafeDumper as _BaseDumper  # type: ignore[assignment]
    from yaml import SafeLoader as _BaseLoader  # type: ignore[assignment]


class BadYaml(ValueError):
    """The text is no YAML, or YAML that a recording may not have; the message names the place."""


class _Loader(_BaseLoader):
    """Refuses a key that is given twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for name, _ in node.value:
            if name.value in seen:
                raise BadYaml(f"line {name.start_mark.line + 1}: {name.value!r} is given twice")
            seen.add(name.value)
        return super().construct_mapping(node, deep)


# A date in the content of an answer is text; nothing in a recording is a point in time.
_Loader.yaml_implicit_resolvers = {
    first: [rule for rule in rules if rule[0] != "tag:yaml.org,2002:timestamp"]
    for first, rules in _Loader.yaml_implicit_resolvers.items()
}


def load_yaml(text: str) -> Any:
    """The value of a YAML text. Raises BadYaml."""
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        raise BadYaml(" ".join(str(error).split())) from error
    _refuse_aliases(value, set())
    return value


def _refuse_aliases(value: Any, seen: set[int]) -> None:
    """An alias makes two places share one object. Nested ones grow without limit once they are written out."""
    if not isinstance(value, (dict, list)):
        return
    if id(value) in seen:
        raise BadYaml("aliases (*name) are not allowed")
    seen.add(id(value))
    for part in value.values() if isinstance(value, dict) else value:
        _refuse_aliases(part, seen)


class _Dumper(_BaseDumper):
    """Writes texts of several lines as literal blocks."""


def _represent_text(dumper: _BaseDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def dump_yaml(value: Any) -> str:
    """The YAML text of a value, keys in their own order, lines never folded."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**9)
    return text
