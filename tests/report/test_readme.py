"""README.md of a result: its sections, and what it says of what is missing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallel_orchestrator.report.pages.readme import build_readme, read_document, read_documents
from tests.records.plans import plan, task
from tests.report.runs import Story

PAGE = """# The part

It does a thing.
In two lines.

More of it.

## Run

```sh
# Run it
python -m part_1
```

## Design

Not taken over.
"""


def test_the_parts_of_a_document() -> None:
    document = read_document("docs/part_1.md", PAGE)
    assert (document.path, document.title) == ("docs/part_1.md", "The part")
    assert document.lead == "It does a thing.\nIn two lines."
    assert document.run == "```sh\n# Run it\npython -m part_1\n```"


def test_headings_in_fenced_code_are_no_headings() -> None:
    text = "```sh\n# not a title\n## Run\n```\n\n# Title\n\nLead.\n\n```\n## Usage\nnothing\n```\n"
    document = read_document("d.md", text)
    assert (document.title, document.lead, document.run) == ("Title", "Lead.", "")


@pytest.mark.parametrize("heading", ["## Run", "### Usage", "## How to run", "## Running  "])
def test_the_section_on_running_has_several_names(heading: str) -> None:
    assert read_document("d.md", f"# T\n\n{heading}\n\ndo it\n\n## Else\n").run == "do it"


@pytest.mark.parametrize("text", ["", "\n\n", "just words\n", "#no heading\n"])
def test_a_document_without_a_title_goes_by_its_path(text: str) -> None:
    document = read_document("docs/x.md", text)
    assert (document.title, document.run) == ("docs/x.md", "")
    assert document.lead == text.strip()


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("```sh\nrm <x>", "```sh\nrm <x>\n```"),
        ("~~~\n```\n<b>", "~~~\n```\n<b>\n~~~"),
        ("<!-- hides", "&lt;!-- hides"),
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("`List<int>`, 1 < 2, <https://a.b>", "`List<int>`, 1 < 2, <https://a.b>"),
    ],
)
def test_no_part_hides_what_follows_it_on_the_page(written: str, shown: str) -> None:
    document = read_document("d.md", f"# T\n\n{written}\n")
    assert document.lead == shown
    assert read_document("d.md", f"# T\n\n## Run\n\n{written}\n").run == shown
    assert read_document("d.md", "# <!-- T\n").title == "&lt;!-- T"


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    told = Story(tmp_path, plan(task(1), task(2, (1,), name="The | second\npart"), task(3, (2,))))
    yield told
    told.close()


def _headings(page: str) -> list[str]:
    outside = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^#+ .*$", outside, re.MULTILINE)


AFTER = ["## How to test it", "## What it is made of", "## What was asked for"]


def test_the_top_layer_comes_first(tmp_path: Path) -> None:
    last = task(4, (3,), files=["tests/test_all.py", "docs/tests.md"])
    told = Story(tmp_path, plan(task(1), task(2, (1,)), task(3, (2,)), last))
    for _ in range(4):
        told.merge()
    texts = {
        f"docs/{name}.md": f"# {title}\n\nIt is {name}.\n\n## Run\n\nrun {name}\n"
        for name, title in (("part_1", "Store"), ("part_2", "API"), ("part_3", "The shop"), ("tests", "Tests"))
    }
    page = build_readme(told.state(), texts)
    told.close()
    assert page.startswith("# The shop\n\nIt is part_3.\n\n## How to run it\n\nrun part_3\n\n**Store**\n\nrun part_1")
    assert _headings(page) == ["# The shop", "## How to run it", *AFTER]


def test_the_page_of_a_whole_project(story: Story) -> None:
    for _ in range(3):
        story.merge()
    page = build_readme(story.state(), {"docs/part_1.md": PAGE, "docs/part_2.md": "# Second\n\nIt is next.\n"})
    assert _headings(page) == ["# The part", "## How to run it", *AFTER]
    assert page.startswith("# The part\n\nIt does a thing.\nIn two lines.\n\n## How to run it\n\n```sh\n# Run it")
    assert "## What it is made of\n\nIt is next.\n\n| part |" in page
    assert "## What was asked for\n\nBuild it" in page
    assert "Not taken over" not in page
    assert "Missing" not in page
    assert "| Part 1 | executor_1 | `src/part_1.py`, `tests/test_part_1.py` | [The part](docs/part_1.md) |" in page
    assert "| The \\| second part | executor_1 |" in page
    assert "[docs/execution_plan.json](docs/execution_plan.json)" in page


def test_what_is_missing_is_told_before_what_is_there(story: Story) -> None:
    story.merge()
    story.fail("the model gave up")
    page = build_readme(story.state(), {"docs/part_1.md": "# One\n\nFirst.\n", "docs/part_2.md": "# Two\n\nSecond.\n"})
    missing, there = page.partition("## What it is made of")[::2]
    assert "**Not everything was built.**" in missing
    assert "(the model gave up)" in missing
    assert "- Part 3 (task_2 failed)" in missing
    assert "First." in there
    assert "Second." not in page  # it is not on the trunk
    assert _headings(page) == ["# Build it", *AFTER]


def test_a_long_requirement_has_a_short_title(tmp_path: Path) -> None:
    requirement = "Build " + "a very long thing " * 20 + "indeed\nwith a second line"
    told = Story(tmp_path, plan(task(1)), requirements=requirement)
    page = build_readme(told.state(), {})
    told.close()
    title = page.splitlines()[0]
    assert len(title) <= 74
    assert title.endswith(" …")
    assert title.removeprefix("# ").removesuffix(" …") + " " in requirement
    assert requirement in page


@pytest.mark.parametrize(
    ("requirement", "title"),
    [
        ("Build a form.", "Build a form"),
        ("# Product: a form\n\nIt has fields.", "Product: a form"),
        ("Create an e-commerce platform with authentication, payments, an admin panel and much else", None),
    ],
)
def test_a_title_is_no_cut_sentence(requirement: str, title: str | None, tmp_path: Path) -> None:
    told = Story(tmp_path, plan(task(1)), requirements=requirement)
    page = build_readme(told.state(), {})
    told.close()
    assert page.splitlines()[0] == f"# {title or 'Create an e-commerce platform with authentication'}"


def test_only_markdown_below_docs_is_read_and_bad_bytes_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    (tmp_path / "docs" / "deep" / "a.md").write_bytes(b"# A\xff\n")
    (tmp_path / "docs" / "b.txt").write_text("x")
    (tmp_path / "docs" / "c.md").mkdir()
    (tmp_path / "secret.md").write_text("theirs")
    (tmp_path / "docs" / "d.md").symlink_to(tmp_path / "secret.md")
    assert read_documents(tmp_path) == {"docs/deep/a.md": "# A\ufffd\n"}
    assert read_documents(tmp_path / "none") == {}


def test_links_of_a_document_are_made_relative_to_the_root() -> None:
    text = "# API\n\nSee [more](more.md), [web](https://x.org) and [up](../src/a.py).\n"
    lead = read_document("docs/api.md", text).lead
    assert lead == "See [more](docs/more.md), [web](https://x.org) and [up](src/a.py)."
