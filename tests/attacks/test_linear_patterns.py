"""Every regular expression of the program takes time in proportion to its text, which may be made for it.

The patterns are found in the sources: a new one fails here until it is in `MADE_FOR`, which says what is worst for it.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.config.options import slug
from parallel_orchestrator.report.pages import markdown, readme, summary_page, wrapping
from parallel_orchestrator.system import redact, terminal_text
from parallel_orchestrator.system.user_file import Unusable, parse_json
from parallel_orchestrator.system.yaml_document import Bounds, read_yaml
from parallel_orchestrator.trunk.results import VerifyResult
from parallel_orchestrator.trunk.testing import junit
from planner_agent import json_part

ROOT = Path(__file__).resolve().parents[2]
SHORT = 2_000
"""Characters. The long text has four times as many: linear time grows fourfold, quadratic time sixteenfold."""
MOST_GROWTH = 9
FUNCTIONS = {"compile", "search", "match", "fullmatch", "sub", "subn", "split", "findall", "finditer"}

MADE_FOR: dict[str, list[str]] = {
    "'(?:(\\\\d+(?:\\\\.\\\\d+)?)h)?(?:(\\\\d+(?:\\\\.\\\\d+)?)m)?(?:(\\\\d+(?:\\\\.\\\\d+)?)s?)?'": ["1", "1.", "1h"],
    "'\\\\bmodel'": ["model ", "invalid ", "model x"],
    "'\\\\bmodel\\\\b[^.]{0,100}\\\\b(not found|not exist|unknown)\\\\b|\\\\b(invalid|unknown) model\\\\b'": [
        "model ",
        "invalid ",
        "model x",
    ],
    "'(~|\\\\.{0,2})/\\\\S*|[^\\\\s/]+/\\\\S*'": [],
    "'[.,;:(](?:\\\\s|$)'": [],
    "'[0-9a-f]{40}'": [],
    "'[^a-zA-Z0-9_-]'": [],
    "'\\\\S+\\\\.(md|markdown|txt|text|rst|adoc|org|pdf|docx?|odt|rtf|html?|tex|csv|json|ya?ml|toml)'": [],
    "'\\\\w+'": [],
    "'^[ \\\\t]*(?:-[ \\\\t]*)?(?:\\\\{[ \\\\t]*)?name:[ \\\\t]*[\\\\\"\\']?([A-Za-z0-9][A-Za-z0-9_-]*)'": [],
    "'^committer .* ([+-]\\\\d{4})$'": [],
    "'^requirement:.*(?:\\\\n(?:[ \\\\t].*)?)*'": [],
    "'prompt is too long|exceeds? (?:the |its )?(?:maximum |available )?context|context (?:limit|window|size|length)|maximum context'": [],  # noqa: E501
    "'task_[0-9]+'": [],
    "'apiKeyHelper|proxyAuthHelper|otelHeadersHelper|(aws|gcp)\\\\w+|force\\\\w+|model|sandbox|\\\\w*[pP]lugin\\\\w*|\\\\w*[mM]arket\\\\w*'": [],  # noqa: E501
    "'(ANTHROPIC|CLAUDE|AWS|GOOGLE|AZURE|OTEL|DISABLE|ENABLE|MAX|MCP)_.*|\\\\w*_PROXY'": ["_PROX"],
    '"(?<!\\\\n)\\\\n*Today\'s date is \\\\d{4}-\\\\d\\\\d-\\\\d\\\\d\\\\."': ["\n"],
    "'(con|prn|aux|nul|com[0-9]|lpt[0-9])(\\\\..*)?'": [],
    "'[\\\\w.-]'": [],
    "'[\\\\w.\\\\-]+'": [],
    "'\\\\d+(?:[.:]\\\\d+)*'": [],
    "b'^(Threads|VmRSS|VmSwap):\\\\s+(\\\\d+)'": [],
    "b'^(?:Pss|SwapPss):\\\\s+(\\\\d+)'": [],
    "'(?<=[a-z])(?=[A-Z])'": [],
    "'(?P<task>.+?)(\\\\.(?P<attempt>\\\\d+))?\\\\.jsonl'": [".1", ".jsonl1"],
    "'((?:key|token|secret|passw|credential)\\\\w{0,40}[\\\\\"\\']?\\\\s{0,9}:\\\\s{0,9})\\\\S.*'": [],
    "'^\\\\w+ should '": [],
    "'[a-z0-9]+'": [],
    "'[A-Z_][A-Z0-9_]*'": [],
    "'-20[0-9]{6}$'": [],
    "'credit|billing'": [],
    "'credit balance|out of credits?|billing'": [],
    "'task_[1-9][0-9]{0,3}'": [],
    "'fix_[1-9][0-9]{0,3}'": [],
    "'[A-Za-z0-9][A-Za-z0-9._-]*(\\\\[[A-Za-z0-9,._-]+\\\\])?\\\\s*([<>=!~]=?=?\\\\s*[A-Za-z0-9.*+-]+,?\\\\s*)*'": [
        "=1 ,",
        "a=1, ",
    ],
    "'[A-Za-z0-9_][A-Za-z0-9_.\\\\-]*'": [],
    "'^origin: {0,9}[\\\\\"\\']?(written|exported)\\\\b'": ["\norigin: "],
    "'reached its limit of (\\\\d+) turns'": [],
    "'reached its limit of ([\\\\d.]+) minutes'": [],
    "' *(?:\\\\w+: {2,})?'": [],
    "'\\\\S {2,}|[│├└]|^\\\\d* *\\\\||^(?:/|cd |(?=\\\\S*python)\\\\S+ |parallel-orchestrator )'": [
        "python",
        "xpython",
        "1",
    ],
    "'[\\\\\\\\`*\\\\[\\\\]]|_|<(?=[A-Za-z/!?]|$)|!(?=\\\\[|$)|&(?=#?\\\\w{1,40};)'": [],
    "'^(\\\\d{1,9})([.)])(?=\\\\s|$)'": [],
    "'>|~~~|#{1,6}(?:\\\\s|$)|[-+](?:\\\\s|$)|-[-\\\\s]*$|=+\\\\s*$'": [],
    "'\\\\s+'": [],
    "'[A-Za-z][A-Za-z0-9+.-]{0,30}:'": [],
    "'[\\\\w.+#-]{1,30}'": [],
    "'[^\\\\s()\\\\\\\\&`]+'": [],
    "'`+'": [],
    "'Run|Running|Usage|How to run'": [],
    "'([\\\\\\\\`*_{}\\\\[\\\\]()#+!|~$@])'": [],
    '"[^\\\\w .,\'/-]+|_{2,}"': [],
    "'PATH|HOME|USER|LOGNAME|TZ|LANG|LANGUAGE|LC_[A-Z]+|TMPDIR|TEMP|TMP|CLAUDE_CONFIG_DIR|LD_LIBRARY_PATH|DYLD_[A-Z_]+|PYTHON(?!STARTUP|INSPECT|BREAKPOINT)[A-Z0-9]+'": [],  # noqa: E501
    "'(?i:HTTPS?_PROXY|NO_PROXY)|SSL_CERT_(?:FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|PIP_[A-Z_]+'": [],
    "'(?i:(?:^|_)(?:API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|PAT)(?:_ID)?$)'": [],
    "'(?!/)(?=.*[0-9])(?=.*[A-Za-z])[!-~]{16,}'": [],
    "'((?:task|fix)_[1-9][0-9]{0,3})(?:\\\\.([1-9][0-9]*))?\\\\.jsonl'": [".1", ".jsonl1"],
    "f'[{_STEERING}]'": [],
    "f'[^\\\\n -~](?<=[{_STEERING}])'": [],
    "f'[^\\\\n\\\\t -~](?<=[{_STEERING}])'": [],
    "b'\\\\s*\\\\{\\\\s*\"version\":\\\\s*(\\\\d+)'": [" {"],
    "'[A-Za-z0-9+/_-]{20}|PRIVATE KEY'": [],
    "'[A-Za-z0-9+/_-]{24,}(?:\\\\r?\\\\n[A-Za-z0-9+/_-]{4,})*={0,2}'": [],
    "'%..'": [],
    "f'(?:{_PREFIXES})-([0-9a-f]+)\\\\.([0-9a-f]+)\\\\.([0-9a-f]+)-\\\\w+'": [],
    "'[-+0-9_.:eE]+'": [],
    "'[-+]?(0|[1-9][0-9]*)'": [],
    "'(?<!\\\\d)(?:\\\\d{1,9} [a-z]{1,20}(?: [a-z]{1,20})?, ){0,12}\\\\d{1,9} [a-z]{1,20}(?: [a-z]{1,20})? in \\\\d[\\\\d.]*s'": [  # noqa: E501
        "1 a, ",
        "1 a b, ",
        "1",
    ],
    "'(\\\\d{1,9}) (passed|xpassed|failed|errors?)\\\\b'": ["1", "1 passe"],
    "'(\\\\d{1,9})\\\\.(\\\\d{1,9})'": [],
    "'[\\\\\\\\:*?\"<>|]|[. ]$|^git~\\\\d+$'": [],
    "'\\\\b[0-9a-f]{40}\\\\b|objects/[0-9a-f]{2}/[0-9a-f]{38}'": ["objects/", "objects/aa/"],
    "'```(?:json)?\\\\s*\\\\n(?=\\\\{)'": ["```\n", "```json", " \n"],
}
"""By pattern: pieces whose repetition would be the worst for it. Without any, those that are made of it are enough."""
TOP = ("orchestrator", "planner_agent", "executor_agent", "demo")


def calls(tree: ast.AST) -> Iterator[tuple[str, str, ast.Call]]:
    """Each use of `re` in a file: the name that its value is given, if it is given one, and the function."""
    named = {id(node.value): node.targets[0].id for node in ast.walk(tree)
             if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)}  # fmt: skip
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if isinstance(node.func.value, ast.Name) and node.func.value.id == "re" and node.func.attr in FUNCTIONS:
            yield named.get(id(node), ""), node.func.attr, node


@dataclass(frozen=True)
class Use:
    """A pattern of the program, and how it is used: `search` stands for all that look at each place of a text."""

    expression: str
    pattern: re.Pattern[Any]
    ways: frozenset[str]

    def run(self, text: str) -> None:
        given = text.encode() if isinstance(self.pattern.pattern, bytes) else text
        for way in self.ways:
            getattr(self.pattern, way)(given)


def uses(path: Path) -> Iterator[Use]:
    source = path.read_text()
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for name, function, call in calls(ast.parse(source)):
        flags = ast.unparse(call.args[1]) if function == "compile" and len(call.args) > 1 else "0"
        flags = next((ast.unparse(word.value) for word in call.keywords if word.arg == "flags"), flags)
        spaces = {**vars(module), "core": "QUJDREVGR0hJSktM"}
        pattern = re.compile(eval(ast.unparse(call.args[0]), spaces), eval(flags, spaces))
        found = (
            set(re.findall(rf"\b{name}\.(\w+)\b", source)) & FUNCTIONS if function == "compile" and name else {function}
        )
        ways = {way if way in ("match", "fullmatch") else "findall" for way in found - {"compile"}} or {"findall"}
        yield Use(ast.unparse(call.args[0]), pattern, frozenset(ways))


SOURCES = [*sorted((ROOT / "parallel_orchestrator").rglob("*.py")), *(ROOT / f"{name}.py" for name in TOP)]
USES = [use for path in SOURCES if "\nimport re\n" in path.read_text() for use in uses(path)]
USES += [Use(text, re.compile(text), frozenset({"findall"})) for text in redact._PATTERNS]


def seconds(run: Callable[[str], Any], text: str) -> float:
    """The best of several times."""
    best = sys.float_info.max
    for _ in range(3):
        began = time.process_time()
        run(text)
        best = min(best, time.process_time() - began)
        if best > 1:
            break
    return best


def growth(run: Callable[[str], Any], unit: str, short: int = SHORT) -> float:
    """How many times as long four times the text takes. A plain look at the text is the least that counts."""
    texts = [(unit * (size // len(unit) + 1))[:size] + "\x01" for size in (short, 4 * short)]
    least = seconds(LOOK.findall, texts[0])
    return seconds(run, texts[1]) / max(seconds(run, texts[0]), least)


LOOK = re.compile("[^\x00]")


def common() -> Iterator[str]:
    """Characters that most patterns name."""
    yield from ("1", "a", " ", "\n", "_", "-")


def test_each_pattern_is_in_the_table() -> None:
    patterns = {use.expression for use in USES}
    assert patterns - set(MADE_FOR) - set(redact._PATTERNS) == set(), "say what text is the worst for a new pattern"
    assert set(MADE_FOR) - patterns == set(), "no such pattern is in the program any more"


@pytest.mark.alone
@pytest.mark.thorough
@pytest.mark.parametrize("use", USES, ids=lambda use: use.expression[:60])
def test_a_pattern_takes_time_in_proportion_to_its_text(use: Use) -> None:
    for unit in [*MADE_FOR.get(use.expression, ()), *common()]:
        # What grows too fast at first may have been disturbed: it has to grow so each time.
        if growth(use.run, unit) > MOST_GROWTH:
            assert min(growth(use.run, unit) for _ in range(3)) <= MOST_GROWTH, repr(unit)


def _documented(text: str) -> None:
    readme.read_document("docs/a.md", f"# T\n\n{text}\n\n## Run\n\n{text}")


def _as_json(text: str) -> None:
    with suppress(Unusable):
        parse_json(text)


def _printed(text: str) -> None:
    for phrase in ("no module named ", "cannot access "):
        VerifyResult("python src/a.py", 1, phrase + text, timed_out=False, seconds=0.0).cannot_work()


SCANS: dict[str, Callable[[str], Any]] = {
    "README": _documented,
    "phrase": markdown.phrase,
    "YAML": lambda text: read_yaml(text, Bounds(values=100_000, levels=100)),
    "JSON": _as_json,
    "plan in an answer": json_part,
    "one line": terminal_text.one_line,
    "printable": terminal_text.printable,
    "page": terminal_text.page,
    "JSON for people": terminal_text.escape_json,
    "secrets": redact.foreign,
    "Markdown of a summary": summary_page.escaped,
    "folded": lambda text: wrapping.fold(text, 80),
    "slug": slug,
    "closing line of pytest": lambda text: junit.contradicts(text, []),
    "output of a verify command": _printed,
}
"""What reads foreign text by hand or by patterns, as a whole."""
UNITS = ["](a](a", "[", "![", "`", "``a", "*a ", "_", "<", "<!--", "&#", "> ", "- ", "\n- a", "a\n\n", "\\", "{", "{a: ",  # noqa: E501
         '{"a":', '"', "'", "\t", " ", "\n", "```\n", "1 a, ", "xpython", "A", "sk-", "-----BEGIN PRIVATE KEY-----", "é", "1.",  # noqa: E501
         "&a ", "*a, ", "? ", "#", "%TAG ! b\n", "\x1b", "a:\n", "[a]: b\n", "~~~\n", "1) ", "|a", "||"]  # fmt: skip


@pytest.mark.alone
@pytest.mark.thorough
@pytest.mark.parametrize("scan", SCANS)
def test_what_reads_foreign_text_takes_time_in_proportion_to_it(scan: str) -> None:
    run = SCANS[scan]
    for unit in UNITS:
        if growth(run, unit, SCANNED) > MOST_GROWTH:
            assert min(growth(run, unit, SCANNED) for _ in range(3)) <= MOST_GROWTH, repr(unit)


SCANNED = 1_000
