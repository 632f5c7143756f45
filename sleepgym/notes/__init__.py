"""Notes: a memory as a folder of Markdown files that people can read, edit and take along."""

from sleepgym.notes.errors import NotesError
from sleepgym.notes.fact_notes import Edit, FactNotes
from sleepgym.notes.retrieval import Retrieved, Retriever
from sleepgym.notes.store import NoteStore

__all__ = ["Edit", "FactNotes", "NoteStore", "NotesError", "Retrieved", "Retriever"]
