"""A requirement that names a file: its text is what is built, and no name is ever planned as words."""

from __future__ import annotations

from pathlib import Path

import pytest

from parallel_orchestrator.config.requirement import from_file, understood
from parallel_orchestrator.records.errors import UsageError


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["prd.md", "docs/prd.txt", "./notes", "my prd.md"])
def test_the_text_of_a_named_file_is_the_requirement(name: str) -> None:
    Path("docs").mkdir()
    Path(name).write_text("# A form\n\nBuild it.\n")
    if name == "my prd.md":
        with pytest.raises(UsageError, match=r"--requirements-file 'my prd\.md'"):
            understood(name)
    else:
        assert understood(name) == "# A form\n\nBuild it.\n"
    assert from_file(Path(name)) == "# A form\n\nBuild it.\n"


@pytest.mark.parametrize("text", ["Build a form", "Calculator", "Convert notes.md to HTML", "a\nb.md", "x" * 5000, ""])
def test_words_stay_words(text: str) -> None:
    assert understood(text) == text


@pytest.mark.parametrize("name", ["prd.md", "docs/prd", "../prd", "/nowhere/prd", "~/nowhere.txt", "REQUIREMENTS.TXT"])
def test_the_name_of_a_file_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"there is no file {name}"):
        understood(name)


def test_a_near_name_is_offered() -> None:
    Path("PRD.md").write_text("Build it")
    with pytest.raises(UsageError, match=r"there is no file prd\.txt; did you mean PRD\.md\?"):
        understood("prd.txt")
    with pytest.raises(UsageError, match=r"cannot read .*; did you mean PRD\.md\?"):
        from_file(Path("prd.mdd"))


def test_where_both_may_be_meant_the_person_is_asked() -> None:
    Path("calculator").write_text("Build it")
    with pytest.raises(UsageError, match="is the name of a file, too"):
        understood("calculator")
    Path("scenarios.yaml").write_text("scenarios: []")
    with pytest.raises(UsageError, match=r"--config scenarios\.yaml .* --plan scenarios\.yaml"):
        understood("scenarios.yaml")


def test_a_folder_is_no_requirement_but_may_be_called_like_one() -> None:
    Path("outputs/form").mkdir(parents=True)
    with pytest.raises(UsageError, match="resume outputs/form"):
        understood("outputs/form")
    assert understood("outputs") == "outputs"


def test_a_file_that_cannot_be_used_says_why() -> None:
    Path("empty.md").write_text(" \n")
    Path("binary.pdf").write_bytes(b"%PDF-1.7\xff\xfe")
    with pytest.raises(UsageError, match=r"empty\.md is empty"):
        understood("empty.md")
    with pytest.raises(UsageError, match=r"cannot read the requirement binary\.pdf: it is not text in UTF-8"):
        understood("binary.pdf")
    with pytest.raises(UsageError, match=r"cannot read the requirement gone\.md: No such file or directory"):
        from_file(Path("gone.md"))
