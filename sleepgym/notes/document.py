"""One file of notes: read into blocks and written back without losing a byte.

A block that nobody changes is written as it was read, whatever is in it. So what a person wrote by hand stays: prose,
numbered lists, nesting, code, unknown fields, any order, either kind of line end.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from sleepgym.notes.bullet import TIERS, Bullet, Tier, read_bullet

HEADINGS: dict[Tier, str] = {
    "working": "## Working memory (current context subject to change)",
    "long_term": "## Long-term memory (stable facts that are unlikely to change)",
    "history": "## History (no longer current)",
}
EMPTY = "_No entries yet._"
TITLE = "Memory: "
"""What a title begins with."""

_HEADING = re.compile(r"(#{1,6})[ \t]+")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
# Not "history" alone: "History of my family" is a heading of a person's own, and what is under it is current.
_SECTION = re.compile(r"(working memory\b)|(long[- ]term memory\b)|(history(?: \(.*)?$)", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Block:
    """Lines that belong together: a bullet, a heading, a line of prose, code between fences.

    Two blocks are equal only if they are the same one: a file may say the same thing twice.

    Attributes:
        lines: As they stand in the file, without line feeds.
        tier: What the section that it is in stands for.
        heading: Text of the nearest heading above.
        bullet: The note, if it is one.
        level: Of a heading, the number of its ``#``; 0 for everything else.
        prose: Whether it is a line of text that a person may have written, and no bullet.
    """

    lines: tuple[str, ...]
    tier: Tier
    heading: str
    bullet: Bullet | None = None
    level: int = 0
    prose: bool = False

    @property
    def blank(self) -> bool:
        """Whether there is nothing in it."""
        return not any(line.strip() for line in self.lines)


@dataclass(frozen=True)
class Document:
    """A file of notes, in blocks from top to bottom; :func:`parse` reads one, :meth:`text` is the file again."""

    blocks: tuple[Block, ...]

    @property
    def text(self) -> str:
        """The file."""
        return "\n".join(line for block in self.blocks for line in block.lines)

    @property
    def title(self) -> str:
        """What the first heading says, without ``Memory:``; empty without one."""
        return _heading_of_title(self).removeprefix(TITLE)

    def notes(self) -> Iterator[tuple[Block, Bullet]]:
        """The bullets, each with its block."""
        return ((block, block.bullet) for block in self.blocks if block.bullet is not None)

    def current(self) -> Iterator[tuple[Block, Bullet]]:
        """The bullets that hold, whenever that is looked at: not in history, neither superseded nor expired."""
        return ((block, one) for block, one in self.notes() if one.holds(block.tier))

    def numbered(self) -> Iterator[tuple[int, Block]]:
        """The blocks, each with the line of the file that it begins in, counted from 1."""
        line = 1
        for block in self.blocks:
            yield line, block
            line += len(block.lines)

    @property
    def bare(self) -> bool:
        """Whether there is nothing in it but a title and the sections of the format."""
        return all(
            block.bullet is None and not block.prose and (block.level < 2 or _tier_of(block.heading) is not None)
            for block in self.blocks
        )

    def changed(self, block: Block, bullet: Bullet) -> Document:
        """The document with another bullet in a block's place."""
        first, *more = bullet.lines
        lines = (first + self._ending, *more)
        return self._with(block, replace(block, lines=lines, bullet=bullet))

    def without(self, block: Block) -> Document:
        """The document without a block; a section that is empty then says so."""
        at = self.blocks.index(block)
        # A file has one line at least, be it an empty one.
        blocks = self.blocks[:at] + self.blocks[at + 1 :] or (Block(("",), block.tier, block.heading),)
        heading = next((i for i in range(at - 1, -1, -1) if blocks[i].level), None)
        if heading is None:
            return Document(blocks)
        section = blocks[heading + 1 : next((i for i in range(at, len(blocks)) if blocks[i].level), None)]
        own = _tier_of(blocks[heading].heading) is None
        if own or blocks[heading].level != 2 or not all(block.blank for block in section):
            return Document(blocks)
        return Document((*blocks[: heading + 1], self._line(EMPTY, blocks[heading]), *blocks[heading + 1 :]))

    def including(self, tier: Tier, *bullets: Bullet, heading: str = "") -> Document:
        """The document with bullets at the end of a section, which is made if needed.

        Args:
            tier: Whose section.
            bullets: What goes there.
            heading: A person's own heading that it is instead, in long-term memory; others are not looked for.
        """
        document, at = self._place(tier, heading)
        near = document.blocks[at]
        new = []
        for bullet in bullets:
            first, *more = bullet.lines
            new.append(Block((first + self._ending, *more), tier, near.heading, bullet))
        return document._inserted(at, new)

    def including_prose(self, lines: tuple[str, ...], tier: Tier, heading: str = "") -> Document:
        """The document with a paragraph at the end of a section; see :meth:`including`."""
        document, at = self._place(tier, heading)
        near = document.blocks[at]
        new = [replace(self._line(line, near), prose=bool(line.strip())) for line in lines]
        return document._inserted(at, [self._line("", near), *new])

    def retired(self, block: Block, **fields: str) -> Document:
        """The document with a bullet in history, with these fields set.

        It moves into that section; but one that is nested, or that others are nested in, stays where it has its sense.
        """
        if block.bullet is None:
            return self
        bullet = block.bullet.having(tier="history", **fields)
        if block.tier == "history" or all(other is not block for other, _ in self.alone()):
            return self.changed(block, bullet)
        return self.without(block).including("history", replace(bullet, marker="- "))

    def alone(self) -> Iterator[tuple[Block, Bullet]]:
        """The bullets without anything nested, and not nested themselves: they mean the same wherever they stand."""
        lines = [next((line for line in block.lines if line.strip()), "") for block in self.blocks]
        below = ""
        nested = [False] * len(lines)
        for i in range(len(lines) - 1, -1, -1):
            nested[i] = below[:1] in (" ", "\t")
            below = lines[i] or below
        return (
            (block, block.bullet)
            for block, has_nested in zip(self.blocks, nested, strict=True)
            if block.bullet is not None and block.bullet.marker[0] not in " \t" and not has_nested
        )

    def _with(self, old: Block, *new: Block) -> Document:
        at = self.blocks.index(old)
        return Document((*self.blocks[:at], *new, *self.blocks[at + 1 :]))

    @property
    def _ending(self) -> str:
        """What stands before line feeds in this file."""
        return "\r" if self.blocks[0].lines[0].endswith("\r") else ""

    def _line(self, text: str, near: Block) -> Block:
        return Block((text + self._ending,), near.tier, near.heading)

    def _end(self, near: Block) -> Block:
        """What makes the last line end in a line feed."""
        return Block(("",), near.tier, near.heading)

    def _section(self, tier: Tier) -> int | None:
        """Index of the heading of a tier's section."""
        return next((i for i, b in enumerate(self.blocks) if b.level == 2 and _tier_of(b.heading) == tier), None)

    def _place(self, tier: Tier, heading: str) -> tuple[Document, int]:
        """The document with a section that is asked for, and the index of its heading."""
        if tier == "long_term" and heading and heading != _heading_of_title(self) and _tier_of(heading) is None:
            own = (i for i, b in enumerate(self.blocks) if b.level >= 2 and (b.heading, b.tier) == (heading, tier))
            at = next(own, None)
            if at is not None:
                return self, at
            made = Block((f"## {heading}{self._ending}",), tier, heading, level=2)
            document = Document((*self._stripped(), self._line("", made), made, self._end(made)))
            return document, len(document.blocks) - 2
        found = self._section(tier)
        return self._sectioned(tier) if found is None else (self, found)

    def _inserted(self, heading: int, new: list[Block]) -> Document:
        """The document with blocks at the end of the section that begins at an index."""
        blocks = self.blocks
        # Before the next heading of any level: what is under a deeper one is about that.
        end = next((i for i in range(heading + 1, len(blocks)) if blocks[i].level), len(blocks))
        last = max(i for i in range(heading, end) if i == heading or not blocks[i].blank)
        blank = self._line("", blocks[heading])
        if last > heading and _is_empty_mark(blocks[last]):
            before, after = blocks[:last], blocks[last + 1 :]
        else:
            # A list that follows a paragraph directly is part of it for some readers of Markdown.
            before, after = (*blocks[: last + 1], *([blank] if blocks[last].prose else [])), blocks[last + 1 :]
        return Document((*before, *new, *(after or [self._end(blocks[heading])])))

    def _stripped(self) -> tuple[Block, ...]:
        """The blocks up to the last one that is not blank."""
        return self.blocks[: max((i + 1 for i, block in enumerate(self.blocks) if not block.blank), default=0)]

    def _sectioned(self, tier: Tier) -> tuple[Document, int]:
        """The document with an empty section for a tier, and the index of its heading.

        It stands before the first one that comes later in a canonical file.
        """
        later = [i for other in TIERS[TIERS.index(tier) + 1 :] if (i := self._section(other)) is not None]
        text = HEADINGS[tier]
        made = Block((text + self._ending,), tier, text.removeprefix("## "), level=2)
        blank = self._line("", made)
        before = self.blocks[: min(later)] if later else self._stripped()
        gap = [blank] if before and not before[-1].blank else []
        after = (blank, *self.blocks[min(later) :]) if later else (self._end(made),)
        return Document((*before, *gap, made, self._line(EMPTY, made), *after)), len(before) + len(gap)


def new_document(title: str) -> Document:
    """A canonical document that nothing is remembered in yet; of the title, line ends become blanks."""
    sections = "\n\n".join(f"{heading}\n{EMPTY}" for heading in HEADINGS.values())
    return parse(f"# {TITLE}{' '.join(title.split())}\n\n{sections}\n")


def parse(text: str) -> Document:
    """The document that a file is; its :attr:`Document.text` is the same text again, whatever it was."""
    lines = text.split("\n")
    blocks: list[Block] = []
    closing = _closings(lines)
    tier: Tier = "long_term"
    heading, at = "", 0
    while at < len(lines):
        line = lines[at].removesuffix("\r")
        title = _HEADING.match(line)
        end = closing(at)
        if title is not None:
            heading, depth = _told(line[title.end() :]), len(title[1])
            if depth <= 2:
                tier = (_tier_of(heading) if depth == 2 else None) or "long_term"
            blocks.append(Block((lines[at],), tier, heading, level=depth))
            at += 1
        elif end is not None:
            blocks.append(Block(tuple(lines[at : end + 1]), tier, heading, prose=True))
            at = end + 1
        elif (bullet := read_bullet(line)) is not None:
            more = _continuation(lines, at)
            if more > at + 1:
                bullet = replace(bullet, more=tuple(lines[at + 1 : more]))
            blocks.append(Block(tuple(lines[at:more]), tier, heading, bullet))
            at = more
        else:
            prose = bool(line.strip()) and line.strip() != EMPTY
            blocks.append(Block((lines[at],), tier, heading, prose=prose))
            at += 1
    return Document(tuple(blocks))


def _told(rest: str) -> str:
    """What a heading says, without the ``#`` that may close it; those of ``C#`` belong to it."""
    text = rest.strip(" \t")
    opened = text.rstrip("#")
    return opened.rstrip(" \t") if not opened or opened[-1] in " \t" else text


def closed(lines: tuple[str, ...]) -> tuple[str, ...]:
    """Lines of a paragraph, in which no code begins that does not end in it: it would go on in what comes after.

    Such a line is indented, so that it is no fence any more.
    """
    closing, out, at = _closings(list(lines)), [], 0
    while at < len(lines):
        end = closing(at)
        if end is None and _FENCE.fullmatch(lines[at].removesuffix("\r")):
            out.append(f"    {lines[at]}")
        else:
            out += lines[at : (at if end is None else end) + 1]
        at = (at if end is None else end) + 1
    return tuple(out)


def _continuation(lines: list[str], at: int) -> int:
    """Index after the last line of the bullet at an index: lines that are indented deeper, and no bullets."""
    depth, end = _indent(lines[at]), at + 1
    while end < len(lines) and lines[end][:1] in (" ", "\t") and lines[end].strip():
        line = lines[end]
        if _indent(line) < depth + 2 or read_bullet(line.removesuffix("\r")) is not None or _FENCE.match(line.strip()):
            break
        end += 1
    return end


def _indent(line: str) -> int:
    wide = line.expandtabs(4)
    return len(wide) - len(wide.lstrip(" "))


def _closings(lines: list[str]) -> Callable[[int], int | None]:
    """Says where the code ends that begins in a line. A fence that is never closed is no fence.

    Otherwise a note that is added below one would be code to the next reader.
    """
    hopeless = {"`": math.inf, "~": math.inf}  # fences of this length or longer are not closed any more

    def closing(at: int) -> int | None:
        if not lines[at].lstrip(" ").startswith(("`", "~")):  # nearly none
            return None
        opened = _FENCE.fullmatch(lines[at].removesuffix("\r"))
        if opened is None or (opened[1][0] == "`" and "`" in opened[2]):
            return None
        kind, length = opened[1][0], len(opened[1])
        if length >= hopeless[kind]:
            return None
        for end in range(at + 1, len(lines)):
            closed = _FENCE.fullmatch(lines[end].removesuffix("\r"))
            if closed and closed[1][0] == kind and len(closed[1]) >= length and not closed[2].strip():
                return end
        hopeless[kind] = length
        return None

    return closing


def _tier_of(heading: str) -> Tier | None:
    found = _SECTION.match(heading)
    return None if found is None or found.lastindex is None else TIERS[found.lastindex - 1]


def _heading_of_title(document: Document) -> str:
    return next((block.heading for block in document.blocks if block.level == 1), "")


def _is_empty_mark(block: Block) -> bool:
    return block.bullet is None and block.lines[0].strip() == EMPTY
