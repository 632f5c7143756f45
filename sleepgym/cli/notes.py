"""``sleepgym notes``: a folder of Markdown notes from the command line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro
from rich.console import Console

if TYPE_CHECKING:
    from sleepgym.notes.operations import Touched
    from sleepgym.notes.store import NoteStore

DONE, NOTHING, UNUSABLE = 0, 1, 2


@dataclass(frozen=True)
class _InFolder:
    makes_folder: ClassVar[bool] = False

    folder: Path
    """the folder of notes"""
    json: tyro.conf.FlagCreatePairsOff[bool] = field(default=False, kw_only=True)
    """print JSON, for scripts"""

    def do(self, store: NoteStore) -> int:
        """Does it, and returns the exit status; the folder is there, unless the command makes it."""
        raise NotImplementedError

    def _tell(self, touched: Sequence[Touched]) -> int:
        _print([asdict(one) for one in touched], self.json, (f"{one.done}: {one.text} ({one.path})" for one in touched))
        return DONE


@dataclass(frozen=True)
class Add(_InFolder):
    """Add a note.

    Example: sleepgym notes add "Prefers tea to coffee" --topic drinks --folder my-notes
    """

    makes_folder = True

    text: tyro.conf.Positional[str]
    """what is to be remembered, in one line"""
    file: str = "personal/about.md"
    """the file in the folder, made if needed"""
    topic: str | None = None
    """what it is about"""
    tier: Literal["working", "long_term"] = "long_term"
    """whether it holds for now or is likely to stay"""
    source: Literal["user_statement", "assistant_summary", "inference", "system"] = "user_statement"
    """who says so"""
    confidence: Literal["high", "medium", "low"] = "high"
    """how sure that is"""
    expires: str | None = None
    """until when it holds, such as 2026-03-31"""
    review: str | None = None
    """when to look at it again, such as 2026-02-28"""

    def do(self, store: NoteStore) -> int:
        """Adds it."""
        from sleepgym.notes import operations

        return self._tell([operations.add(
            store, self.text, self.file, topic=self.topic, tier=self.tier, source=self.source,
            confidence=self.confidence, expires_at=self.expires, review_at=self.review,
        )])  # fmt: skip


@dataclass(frozen=True)
class Retrieve(_InFolder):
    """Print the notes that answer a query best, as sentences; status 1 if none has a word of it.

    Example: sleepgym notes retrieve "What does she drink?" --folder my-notes
    """

    query: tyro.conf.Positional[str]
    """a question, or words"""
    k: int = 5
    """notes at most"""
    idf: bool = True
    """whether rare words count more than common ones"""
    history: tyro.conf.FlagCreatePairsOff[bool] = False
    """whether what no longer holds may be found too"""

    def do(self, store: NoteStore) -> int:
        """Looks them up."""
        from contextlib import closing

        from sleepgym.notes.retrieval import Retriever

        with closing(Retriever(store)) as retriever:
            found = retriever.retrieve(self.query, self.k, idf=self.idf, history=self.history)
        told = {**asdict(found), "sentences": found.sentences}
        _print(told, self.json, found.sentences)
        return DONE if found.notes else NOTHING


@dataclass(frozen=True)
class Update(_InFolder):
    """Say something else in a note's place; the old one goes into history.

    Example: sleepgym notes update "Prefers tea" "Prefers mate to tea" --folder my-notes
    """

    old: tyro.conf.Positional[str]
    """text of a current note, or a part that no other has"""
    new: tyro.conf.Positional[str]
    """what is to be remembered instead"""
    file: str | None = None
    """its file, if several have it"""

    def do(self, store: NoteStore) -> int:
        """Updates it."""
        from sleepgym.notes import operations

        return self._tell([operations.update(store, self.old, self.new, self.file)])


@dataclass(frozen=True)
class Delete(_InFolder):
    """Delete a note, in history too.

    Example: sleepgym notes delete "Prefers mate to tea" --folder my-notes
    """

    text: tyro.conf.Positional[str]
    """its text, or a part that no other has"""
    file: str | None = None
    """its file, if several have it"""

    def do(self, store: NoteStore) -> int:
        """Deletes it."""
        from sleepgym.notes import operations

        return self._tell(operations.delete(store, self.text, self.file))


@dataclass(frozen=True)
class Undo(_InFolder):
    """Take the last change back; once more, and it is done again.

    Example: sleepgym notes undo --folder my-notes
    """

    def do(self, store: NoteStore) -> int:
        """Takes it back."""
        what = store.undo()
        _print({"undone": what}, self.json, [f"undone: {what}"])
        return DONE


@dataclass(frozen=True)
class Tree(_InFolder):
    """Write the list of all files, _tree.md, anew and print it.

    Example: sleepgym notes tree --folder my-notes
    """

    def do(self, store: NoteStore) -> int:
        """Writes it."""
        lines = store.write_tree().rstrip("\n").split("\n")
        _print(lines, self.json, lines)
        return DONE


@dataclass(frozen=True)
class Ls(_InFolder):
    """List the files, or the notes of a file with the lines they are in.

    Example: sleepgym notes ls personal/about.md --folder my-notes
    """

    file: tyro.conf.Positional[str | None] = None
    """whose notes to list; by default the files are listed"""

    def do(self, store: NoteStore) -> int:
        """Lists them."""
        if self.file is None:
            paths = store.files()
            _print(paths, self.json, paths)
            return DONE
        rows, now = [], store.clock()
        for line, block in store.read(self.file).numbered():
            if block.bullet is not None:
                row = {"line": line, "text": block.bullet.words, "tier": block.bullet.tier(block.tier)}
                rows.append(row | {"status": block.bullet.status(now), "fields": dict(block.bullet.fields)})
        _print(rows, self.json, (f"{r['line']}: {r['text']} [{r['tier']}, {r['status']}]" for r in rows))
        return DONE


@dataclass(frozen=True)
class Prune(_InFolder):
    """Put what has expired into history; nothing is deleted.

    Example: sleepgym notes prune --folder my-notes
    """

    def do(self, store: NoteStore) -> int:
        """Puts it there."""
        from sleepgym.notes import operations

        return self._tell(operations.prune(store))


@dataclass(frozen=True)
class Compact(_InFolder):
    """Make one note of those in the same words, and put what no longer holds into history.

    Example: sleepgym notes compact --folder my-notes
    """

    def do(self, store: NoteStore) -> int:
        """Compacts."""
        from sleepgym.notes import operations

        return self._tell(operations.compact(store))


@dataclass(frozen=True)
class Lint(_InFolder):
    """Say what is odd, and change nothing; status 1 if anything is.

    Example: sleepgym notes lint --folder my-notes
    """

    def do(self, store: NoteStore) -> int:
        """Looks for it."""
        from sleepgym.notes.lint import lint

        odd = lint(store)
        _print([asdict(one) for one in odd], self.json, (f"{one.path}:{one.line}: {one.what}" for one in odd))
        return NOTHING if odd else DONE


@dataclass(frozen=True)
class Export(_InFolder):
    """Write all notes as one file.

    Example: sleepgym notes export --out notes.json --folder my-notes
    """

    form: Literal["omf", "text"] = "omf"
    """omf: the Open Memory Format (JSON), with everything; text: current notes, a line each"""
    out: Path | None = None
    """the file; by default it is printed"""

    def do(self, store: NoteStore) -> int:
        """Writes them."""
        from sleepgym import files
        from sleepgym.notes.omf import exported_omf
        from sleepgym.notes.plain import exported_text

        text = exported_omf(store) if self.form == "omf" else exported_text(store)
        if self.out is None:
            print(text, end="")
        else:
            files.write(self.out, text.encode())
            _print({"out": str(self.out)}, self.json, [f"exported to {self.out}"])
        return DONE


@dataclass(frozen=True)
class Import(_InFolder):
    """Add the notes of a file that was exported, all or none; those that are there already stay as they are.

    Example: sleepgym notes import notes.json --folder my-notes
    """

    makes_folder = True

    source: tyro.conf.Positional[Path]
    """the file: .json is the Open Memory Format, anything else plain text"""

    def do(self, store: NoteStore) -> int:
        """Adds them."""
        from sleepgym.notes.errors import NotesError
        from sleepgym.notes.merging import merge
        from sleepgym.notes.omf import read_omf
        from sleepgym.notes.plain import read_plain
        from sleepgym.notes.reading import MAX_IMPORT_BYTES, read_text

        text = read_text(self.source, MAX_IMPORT_BYTES, follow=True)
        if text is None:
            raise NotesError(f"expected a file of notes at {self.source}, found none; check its name")
        done = merge(store, read_omf(text) if self.source.suffix.lower() == ".json" else read_plain(text, store))
        _print(asdict(done), self.json, [f"added: {done.added}; there already: {done.present}"])
        return DONE


@tyro.conf.configure(tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Args:
    """Keep a memory of notes in Markdown files that people can read and edit.

    Status 0 if it is done, 1 if nothing was found (or lint found something), 2 if it cannot be done; then every note
    is as it was. `sleepgym notes add --help` says more of a command. An example: `sleepgym notes ls --folder my-notes`.
    """

    command: (
        Annotated[Add, tyro.conf.subcommand("add")]
        | Annotated[Retrieve, tyro.conf.subcommand("retrieve")]
        | Annotated[Update, tyro.conf.subcommand("update")]
        | Annotated[Delete, tyro.conf.subcommand("delete")]
        | Annotated[Undo, tyro.conf.subcommand("undo")]
        | Annotated[Tree, tyro.conf.subcommand("tree")]
        | Annotated[Ls, tyro.conf.subcommand("ls")]
        | Annotated[Prune, tyro.conf.subcommand("prune")]
        | Annotated[Compact, tyro.conf.subcommand("compact")]
        | Annotated[Lint, tyro.conf.subcommand("lint")]
        | Annotated[Export, tyro.conf.subcommand("export")]
        | Annotated[Import, tyro.conf.subcommand("import")]
    )

    def run(self) -> int:
        """Runs the command."""
        from sleepgym.cli.views import one_line
        from sleepgym.notes.errors import NotesError
        from sleepgym.notes.store import NoteStore

        try:
            store = NoteStore(self.command.folder)
            # A mistyped folder would look like an empty memory.
            if not self.command.makes_folder and not store.folder.is_dir():
                raise NotesError(f"expected a folder of notes at {store.folder}, found none; `add` makes one")
            return self.command.do(store)
        except (NotesError, OSError) as error:
            Console(stderr=True, highlight=False, soft_wrap=True).print(one_line(error))
            return UNUSABLE


def _print(content: object, as_json: bool, lines: Iterable[str]) -> None:
    """Prints a result for scripts or for people."""
    from sleepgym.cli.views import shown

    if as_json:
        print(json.dumps(content, ensure_ascii=False))
        return
    for line in lines:
        print(shown(line).plain)
