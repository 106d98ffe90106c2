"""Rewrites foreign Markdown so that a page of this program can include it.

The text is parsed as CommonMark with HTML off. The result is written from the parsed blocks alone, so a tag is text,
each fence is closed, and nothing of one part can hide or change what follows it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from textwrap import indent
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.tree import SyntaxTreeNode

LONGEST_TEXT = 64_000
"""Characters of one text that are parsed: at worst about a second."""
MOST_BYTES = 8_000
"""That one part of a text may give to a page."""

Move = Callable[[str], str]
"""Where a relative link leads, as seen from the page."""

_ACTIVE = re.compile(r"[\\`*\[\]]|_|<(?=[A-Za-z/!?]|$)|!(?=\[|$)|&(?=#?\w{1,40};)")
"""Characters of a text that CommonMark may read as markup."""
_INERT = {"<": "&lt;", "&": "&amp;"}
_NUMBERED = re.compile(r"^(\d{1,9})([.)])(?=\s|$)")
_MARKED = re.compile(r">|~~~|#{1,6}(?:\s|$)|[-+](?:\s|$)|-[-\s]*$|=+\s*$")
_SPACES = re.compile(r"\s+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}:")
_INFO = re.compile(r"[\w.+#-]{1,30}")


@cache
def _library() -> tuple[MarkdownIt, type[SyntaxTreeNode]]:
    import markdown_it.tree  # when a page is made: most commands make none

    return markdown_it.MarkdownIt("commonmark", {"html": False}), markdown_it.tree.SyntaxTreeNode


def blocks(text: str) -> list[SyntaxTreeNode]:
    """Return the top-level blocks of a text. Only its first `LONGEST_TEXT` characters are parsed."""
    parser, node = _library()
    return node(parser.parse(text[:LONGEST_TEXT])).children


def written(nodes: Iterable[SyntaxTreeNode], move: Move) -> str:
    """The blocks as Markdown; links and images lead where `move` says."""
    return "\n\n".join(filter(None, (_block(node, move) for node in nodes)))


def bounded(nodes: Sequence[SyntaxTreeNode], move: Move, rest: str, *, more: bool = False) -> str:
    """The first blocks that `MOST_BYTES` hold, as Markdown, and the sentence `rest` where some are left out.

    `more`: the text continues after these blocks.
    """
    parts, room = list[str](), MOST_BYTES
    for node in nodes:
        parts.append(written([node], move))
        room -= len(parts[-1].encode()) + 2
        if room < 0:
            parts[-1], more = "", True
            break
    return "\n\n".join(filter(None, [*parts, rest if more else ""]))


def phrase(text: str) -> str:
    """Return a text of one line as Markdown: emphasis and code stay, links become their words."""
    parser, node = _library()
    inline = node(parser.parseInline(_SPACES.sub(" ", text[:LONGEST_TEXT]).strip()))
    return words(inline.children[0])


def words(node: SyntaxTreeNode) -> str:
    """The content of a heading or a phrase on one line, its links and images as their words."""
    return _SPACES.sub(" ", "".join(_inline(one, None) for one in node.children)).strip()


def link(label: str, target: str) -> str:
    """A link to a file or a URL, with a label that is Markdown already."""
    safe = target.replace("<", "%3C").replace(">", "%3E").replace("\n", "%0A")
    return f"[{label}]({safe})" if re.fullmatch(r"[^\s()\\&`]+", safe) else f"[{label}](<{_escaped(safe)}>)"


def moved_from(path: str) -> Move:
    """How links of the document `path` lead on from the project's root."""
    folder = posixpath.dirname(path)

    def move(target: str) -> str:
        if _SCHEME.match(target) or target.startswith(("#", "/")) or not target:
            return target
        return posixpath.normpath(posixpath.join(folder, target))

    return move


def _block(node: SyntaxTreeNode, move: Move) -> str:
    match node.type:
        case "fence" | "code_block":
            return _fence(node)
        case "paragraph":
            return _paragraph(node, move)
        case "blockquote":
            return "\n".join(f"> {line}".rstrip() for line in written(node.children, move).split("\n"))
        case "bullet_list" | "ordered_list":
            return _list(node, move)
        case "heading":  # only inside a list or a quotation: others divide a document
            return f"**{title}**" if (title := words(node.children[0])) else ""
    return "***" if node.type == "hr" else ""


def _fence(node: SyntaxTreeNode) -> str:
    """Code in a fence that no line of it closes."""
    mark = node.markup or "```"
    lines = node.content.split("\n")
    longest = max(len(line.strip()) - len(line.strip().lstrip(mark[0])) for line in lines)
    mark = mark[0] * max(len(mark), longest + 1) if longest >= len(mark) else mark
    info = _INFO.match(node.info.strip())
    return f"{mark}{info[0] if info else ''}\n{node.content.removesuffix(chr(10))}\n{mark}"


def _paragraph(node: SyntaxTreeNode, move: Move | None) -> str:
    lines = "".join(_inline(one, move) for one in node.children[0].children).split("\n")
    return "\n".join(_not_a_block(line.strip()) for line in lines if line.strip())


def _not_a_block(line: str) -> str:
    """A line of text with nothing at its beginning that makes it a heading, a list, a fence or a quotation."""
    return f"\\{line}" if _MARKED.match(line) else _NUMBERED.sub(r"\1\\\2", line)


def _list(node: SyntaxTreeNode, move: Move) -> str:
    number = int(node.attrs.get("start", 1))
    items = list[str]()
    for content in filter(None, (written(item.children, move) for item in node.children)):
        mark = "- " if node.type == "bullet_list" else f"{number + len(items)}. "
        items.append(mark + indent(content, " " * len(mark))[len(mark) :])
    tight = all(part.hidden for item in node.children for part in item.children if part.type == "paragraph")
    return ("\n" if tight else "\n\n").join(items)


def _inline(node: SyntaxTreeNode, move: Move | None) -> str:
    match node.type:
        case "code_inline":
            return _code(node.content)
        case "softbreak" | "hardbreak":
            return "\n" if node.type == "softbreak" else "\\\n"
        case "em" | "strong":
            return _emphasised("".join(_inline(one, move) for one in node.children), node.markup)
        case "link":
            return _link(node, move)
        case "image":
            return _image(node, move)
    return _escaped(_SPACES.sub(" ", node.content))


def _emphasised(content: str, mark: str) -> str:
    """`content` with a mark on each side. Blanks, which entities can put at its ends, would undo the marks there."""
    inner = content.strip(" ")
    before, _, after = content.partition(inner) if inner else (content, "", "")
    return f"{before}{mark}{inner}{mark}{after}" if inner else before


def _code(content: str) -> str:
    mark = "`" * (1 + max((len(run) for run in re.findall("`+", content)), default=0))
    space = " " if content[:1] == "`" or content[-1:] == "`" or content.strip() != content else ""
    return f"{mark}{space}{content}{space}{mark}"


def _link(node: SyntaxTreeNode, move: Move | None) -> str:
    target = str(node.attrs.get("href", ""))
    label = "".join(_inline(one, None) for one in node.children)
    if move is None:
        return label
    return f"<{target.removeprefix('mailto:')}>" if node.markup == "autolink" else link(label, move(target))


def _image(node: SyntaxTreeNode, move: Move | None) -> str:
    """An image of the project. One from elsewhere becomes a link: opening the page loads nothing."""
    target = str(node.attrs.get("src", ""))
    label = "".join(_inline(one, None) for one in node.children).strip() or "image"
    if move is None or target.startswith("data:"):
        return label
    return ("" if _SCHEME.match(target) or target.startswith("//") else "!") + link(label, move(target))


def _escaped(text: str) -> str:
    """`text` with a backslash or an entity wherever CommonMark would read markup."""

    def safe(found: re.Match[str]) -> str:
        mark, at = found[0], found.start()
        within_word = at and text[at - 1].isalnum() and text[at + 1 : at + 2].isalnum()
        return mark if mark == "_" and within_word else _INERT.get(mark, f"\\{mark}")

    return _ACTIVE.sub(safe, text)
