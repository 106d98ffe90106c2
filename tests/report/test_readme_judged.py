"""A CommonMark parser of its own judges the README that documents made for it end in: text, and nothing hidden."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from parallel_orchestrator.report.pages import markdown
from parallel_orchestrator.report.pages.readme import build_readme, read_document, read_documents
from parallel_orchestrator.system.terminal_text import page
from tests.records.plans import plan, task
from tests.report.runs import Story

HOSTILE = [f"{text}\n" for text in Path(__file__).with_name("hostile_documents.md").read_text().split("\n=====\n")]
PLAIN = "# Second\n\nIt is next.\n\n## Run\n\nstart it\n"
SECTIONS = ["How to run it", "How to test it", "What it is made of", "What was asked for"]


def parsed(text: str) -> Iterator[Token]:
    """The tokens of a text, HTML being on; those of lines after their block."""
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        yield token
        yield from token.children or ()


def headings(text: str) -> list[str]:
    tokens = list(parsed(text))
    return [tokens[n + 1].content for n, token in enumerate(tokens) if token.type == "heading_open"]


def words(text: str, **options: bool) -> str:
    """Its text and code, without markup and white space."""
    return "".join(spoken(MarkdownIt("commonmark", options).parse(text)).split())


def spoken(tokens: Iterable[Token]) -> str:
    """The text of tokens; an image without words gets the word "image"."""
    parts = list[str]()
    for token in tokens:
        below = spoken(token.children or ())
        parts += [below.strip() or "image"] if token.type == "image" else [below]
        parts += [token.content] if token.type in SHOWN else []
    return "".join(parts)


SHOWN = ("text", "code_inline", "fence", "code_block")


def assert_harmless(text: str) -> None:
    for token in parsed(text):
        assert token.type not in ("html_block", "html_inline"), token.content
        assert not str(token.attrs.get("href", "")).startswith(("javascript:", "vbscript:", "data:"))
        if token.type == "image":
            assert not re.match(r"[a-z]+:|//", str(token.attrs["src"])), "opening the page loads something"
    lines = text.splitlines()
    for token in parsed(text):
        if token.type == "fence" and token.map:
            assert lines[token.map[1] - 1].lstrip("> ").startswith(token.markup), "it is closed"


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    running = Story(tmp_path, plan(task(1), task(2), task(3, name="<!-- `a` | [b](javascript:c) ```")))
    yield running
    running.close()


@pytest.mark.parametrize("document", HOSTILE)
def test_a_document_made_for_it_becomes_text_and_hides_nothing(story: Story, document: str) -> None:
    for _ in range(3):
        story.merge()
    text = build_readme(story.state(), {"docs/part_1.md": document, "docs/part_2.md": PLAIN})
    assert_harmless(text)
    assert headings(text) == ["Second", *SECTIONS]
    assert text.startswith("# Second\n\nIt is next.\n\n## How to run it\n\nstart it\n")
    tokens = list(parsed(text))
    first = next(n for n, token in enumerate(tokens) if token.content == "part" and tokens[n - 1].type == "th_open")
    rows = [token.type for token in tokens[first:]]
    assert rows[: rows.index("table_close")].count("tr_open") == 3, "the table is whole"
    assert text.endswith("## What was asked for\n\nBuild it.\n\n" + text.rpartition("\n\n")[2])


@pytest.mark.parametrize("document", HOSTILE)
def test_the_requirement_and_a_reason_hide_nothing_either(tmp_path: Path, document: str) -> None:
    story = Story(tmp_path, plan(task(1), task(2)), requirements=f"{document}\n")
    story.merge()
    story.fail(document)
    text = build_readme(story.state(), {"docs/part_1.md": PLAIN})
    story.close()
    assert_harmless(text)
    assert headings(text)[1:] == SECTIONS
    assert text.count("\n- ") >= 1


MARKUP = st.text(st.sampled_from("`~*_<>![]()#-+=|&;\\/:. \n\tab1?\"'@$^") | st.sampled_from("\u2028\xa0\x0c\r\x00é"))
PIECES = st.sampled_from(
    ["```", "~~~", "<b>", "<!--", "&lt;", "&#10;", "](", "![", "\n\n", "\n> ", "\n- ", "\n1. ", "---"]
)


def written(text: str) -> str:
    return page(markdown.written(markdown.blocks(text), markdown.moved_from("docs/a.md")))


@given(st.lists(MARKUP | PIECES).map("".join))
@example("a\n=\n`\n=")
@settings(max_examples=400, deadline=None)
def test_whatever_is_written_is_harmless_and_ends(text: str) -> None:
    part = written(text)
    assert_harmless(f"{part}\n\n# Next\n")
    assert headings(f"{part}\n\n# Next\n") == ["Next"]
    assert_harmless(f"# {markdown.phrase(text)}\n\n| {markdown.phrase(text)} |")


@pytest.mark.parametrize(
    "text",
    [
        "Two *words* and **`more`**, snake_case, __init__.py, 2 * 3, a < b & c, `a|b`, \\# and &copy;.\nNext line.",
        "- one\n- two\n  - below\n\n    its text\n\n1. first\n2. second\n\n   ```sh\n   run --it\n   ```",
        "> quoted\n> > twice\n>\n> - in it\n\n    indented code\n\n***\n\nlast",
        "[more](more.md), [web](https://x.org/a_(b)?c=1&d=2 'title'), <https://a.b/c_d>, ![map](map.png)",
        "See [the **guide**][g], [g].\n\n[g]: guide.md 'x'",
        "7. seven\n8. eight\n\n+ other\n+ list",
    ],
)
def test_ordinary_markdown_keeps_its_meaning(text: str) -> None:
    def shape(source: str) -> list[str]:
        return [token.type.replace("code_block", "fence") for token in parsed(source)]

    assert shape(markdown.written(markdown.blocks(text), str)) == shape(text)
    assert words(markdown.written(markdown.blocks(text), str)) == words(text)


@given(st.lists(MARKUP | PIECES).map("".join))
@example("![]() ![ ](a:b) ![a\\*b *c* `d`](e.png)")
@example(":*&#10;*")
@example("--&#10;-")
@example("a **&#32;b&nbsp;** _&#10;c_ *d **&#10;** *")
@settings(max_examples=200, deadline=None)
def test_no_word_is_lost(text: str) -> None:
    text = page(text.replace("\r", "").replace("\x00", ""))
    kept, given = words(written(text)), words(text, html=False)
    assert sorted(kept) == sorted(given)


def test_links_and_images_lead_on_and_nothing_is_loaded_from_elsewhere() -> None:
    text = "# T\n\n[a](b.md) ![c](d.png) ![e](https://x.org/f.png) [g](#h) [i](../src/j.py) [k](l%20m.md)\n"
    lead = read_document("docs/t.md", text).lead
    assert lead == ("[a](docs/b.md) ![c](docs/d.png) [e](https://x.org/f.png) [g](#h) [i](src/j.py) [k](docs/l%20m.md)")


def test_what_one_document_gives_is_bounded_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    long = "# T\n\n" + "](a](a" * 150_000 + "\n\n## Run\n\nnever reached\n"
    (tmp_path / "docs" / "long.md").write_text(long)
    rest = "The rest is too long for this page: [read it](docs/long.md)."
    for text in (long, read_documents(tmp_path)["docs/long.md"]):
        document = read_document("docs/long.md", text)
        assert (document.lead, document.run) == (rest, "")
    steps = "".join(f"Step {n} is this.\n\n" for n in range(5_000))
    document = read_document("docs/long.md", f"# {'T' * 300}\n\nlead\n\n## Run\n\n{steps}")
    assert (document.title, document.lead) == ("docs/long.md", "lead")
    assert document.run.startswith("Step 0 is this.\n\nStep 1 is this.\n\n")
    assert document.run.endswith(f" is this.\n\n{rest}")
    assert len(document.run.encode()) < markdown.MOST_BYTES + 200


def test_a_section_that_ends_where_reading_ends_says_so() -> None:
    filling = "x " * (markdown.LONGEST_TEXT // 2 - 20)
    document = read_document("docs/a.md", f"# T\n\n{filling}\n\n## Run\n\ndo it\n\nthen more, and more, and more\n")
    assert document.run.startswith("do it")
    assert document.run.endswith("The rest is too long for this page: [read it](docs/a.md).")
