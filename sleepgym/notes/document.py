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
TITLE = "# Memory: "

_HEADING = re.compile(r"(#{1,6})[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*")
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
        first = next((block.heading for block in self.blocks if block.level == 1), "")
        return first.removeprefix(TITLE.removeprefix("# "))

    def notes(self) -> Iterator[tuple[Block, Bullet]]:
        """The bullets, each with its block."""
        return ((block, block.bullet) for block in self.blocks if block.bullet is not None)

    @property
    def bare(self) -> bool:
        """Whether nothing is remembered in it: no bullet and no prose, only headings."""
        return all(block.bullet is None and not block.prose for block in self.blocks)

    def changed(self, block: Block, bullet: Bullet) -> Document:
        """The document with another bullet in a block's place."""
        first, *more = bullet.lines
        lines = (first + self._ending, *more)
        return self._with(block, replace(block, lines=lines, bullet=bullet))

    def without(self, block: Block) -> Document:
        """The document without a block; a section that is empty then says so."""
        at = self.blocks.index(block)
        blocks = self.blocks[:at] + self.blocks[at + 1 :]
        heading = next((i for i in range(at - 1, -1, -1) if blocks[i].level), None)
        if heading is None:
            return Document(blocks)
        # Up to the next heading of any level: what is under a deeper one does not fill this one.
        section = blocks[heading + 1 : next((i for i in range(at, len(blocks)) if blocks[i].level), None)]
        if blocks[heading].level != 2 or any("".join(b.lines).strip() for b in section):
            return Document(blocks)
        return Document((*blocks[: heading + 1], self._line(EMPTY, blocks[heading]), *blocks[heading + 1 :]))

    def including(self, tier: Tier, *bullets: Bullet) -> Document:
        """The document with bullets at the end of a tier's section, which is made if needed."""
        document = self if self._section(tier) is not None else self._sectioned(tier)
        heading = document._section(tier)
        assert heading is not None
        blocks = list(document.blocks)
        end = next((i for i in range(heading + 1, len(blocks)) if 0 < blocks[i].level <= 2), len(blocks))
        new = []
        for bullet in bullets:
            first, *more = bullet.lines
            new.append(Block((first + self._ending, *more), tier, blocks[heading].heading, bullet))
        empty = next((i for i in range(heading + 1, end) if _is_empty_mark(blocks[i])), None)
        if empty is not None:
            return Document((*blocks[:empty], *new, *blocks[empty + 1 :]))
        last = max(i for i in range(heading, end) if i == heading or "".join(blocks[i].lines).strip())
        # A list that follows a paragraph directly is part of it for some readers of Markdown.
        gap = [self._line("", blocks[heading])] if blocks[last].prose else []
        tail = [] if last + 1 < len(blocks) else [self._end(blocks[heading])]
        return Document((*blocks[: last + 1], *gap, *new, *tail, *blocks[last + 1 :]))

    def retired(self, block: Block, **fields: str) -> Document:
        """The document with a bullet in history, with these fields set.

        It moves into that section; but one that is nested, or that others are nested in, stays where it has its sense.
        """
        assert block.bullet is not None
        bullet = block.bullet.having(tier="history", **fields)
        below = self.blocks[self.blocks.index(block) + 1 :]
        line = next((line for b in below for line in b.lines if line.strip()), "")
        if block.tier == "history" or bullet.marker[0] in " \t" or line[:1] in (" ", "\t"):
            return self.changed(block, bullet)
        return self.without(block).including("history", replace(bullet, marker="- "))

    def with_prose(self, lines: tuple[str, ...]) -> Document:
        """The document with a paragraph at its end."""
        blocks = list(self.blocks)
        anchor = blocks[-1]
        while blocks and not "".join(blocks[-1].lines).strip():
            blocks.pop()
        new = [replace(self._line(line, anchor), prose=bool(line.strip())) for line in lines]
        return Document((*blocks, self._line("", anchor), *new, self._end(anchor)))

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

    def _sectioned(self, tier: Tier) -> Document:
        """The document with an empty section for a tier, before the first one that comes later in a canonical file."""
        later = [i for other in TIERS[TIERS.index(tier) + 1 :] if (i := self._section(other)) is not None]
        blocks = list(self.blocks)
        at = min(later, default=len(blocks))
        if not later:
            while at > 0 and not "".join(blocks[at - 1].lines).strip():
                at -= 1
            del blocks[at:]
        text = HEADINGS[tier]
        made = Block((text + self._ending,), tier, text.removeprefix("## "), level=2)
        blank = [self._line("", made)]
        gap = blank if at > 0 and "".join(blocks[at - 1].lines).strip() else []
        after = [self._line("", made)] if later else [self._end(made)]
        blocks[at:at] = [*gap, made, self._line(EMPTY, made), *after]
        return Document(tuple(blocks))


def new_document(title: str) -> Document:
    """A canonical document that nothing is remembered in yet."""
    sections = "\n\n".join(f"{heading}\n{EMPTY}" for heading in HEADINGS.values())
    return parse(f"{TITLE}{title}\n\n{sections}\n")


def parse(text: str) -> Document:
    """The document that a file is; its :attr:`Document.text` is the same text again, whatever it was."""
    lines = text.split("\n")
    blocks: list[Block] = []
    closing = _closings(lines)
    tier: Tier = "long_term"
    heading, at = "", 0
    while at < len(lines):
        line = lines[at].removesuffix("\r")
        title = _HEADING.fullmatch(line)
        end = closing(at)
        if title is not None:
            heading, depth = title[2], len(title[1])
            if depth <= 2:
                tier = (_tier_of(heading) if depth == 2 else None) or "long_term"
            blocks.append(Block((lines[at],), tier, heading, level=depth))
            at += 1
        elif end is not None:
            blocks.append(Block(tuple(lines[at : end + 1]), tier, heading, prose=True))
            at = end + 1
        elif read_bullet(line) is not None:
            more = _continuation(lines, at)
            bullet = read_bullet(line, tuple(lines[at + 1 : more]))
            blocks.append(Block(tuple(lines[at:more]), tier, heading, bullet))
            at = more
        else:
            prose = bool(line.strip()) and line.strip() != EMPTY
            blocks.append(Block((lines[at],), tier, heading, prose=prose))
            at += 1
    return Document(tuple(blocks))


def _continuation(lines: list[str], at: int) -> int:
    """Index after the last line of the bullet at an index: lines that are indented deeper, and no bullets."""
    depth, end = _indent(lines[at]), at + 1
    while end < len(lines) and lines[end].strip():
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


def _is_empty_mark(block: Block) -> bool:
    return block.bullet is None and block.lines[0].strip() == EMPTY
