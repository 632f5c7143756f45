"""Saves and loads a learner's state: safetensors for numbers, JSON for the rest, nothing that can run.

The JSON names the tensors it belongs to, so that replacing one small file replaces the whole checkpoint at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from sleepgym import files
from sleepgym.errors import SleepGymError
from sleepgym.facts.fact import Fact
from sleepgym.lm.language_model import LanguageModel
from sleepgym.memory.ledger import Entry, Ledger
from sleepgym.memory.overlay import Memory
from sleepgym.memory.state import State

FORMAT = 4
READABLE = (3, 4)
"""Formats that can be read: format 3 noted the scale of an edit twice."""
_STATE = "state.json"
# The digits are the content's: new tensors never overwrite those that the JSON on disk still names.
_TERMS = "terms-" + 16 * "[0-9a-f]" + ".safetensors"
_TERMS_BEFORE_FORMAT_3 = "terms.safetensors"


class CheckpointError(SleepGymError, RuntimeError):
    """A checkpoint cannot be read or written; the learner, and a checkpoint that was there, are still whole."""


class Model(Protocol):
    """What a checkpoint notes of a model."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def fingerprint(self) -> str:
        """What identifies it."""
        ...


def save(folder: Path, state: State, lm: Model, notes: Mapping[str, Any] | None = None) -> None:
    """Writes ``state.json`` and the tensors it names, both or neither.

    Whatever stops it (a kill, a power cut, a full disk), the folder loads as the earlier checkpoint or as this one.
    Only one process at a time may save into a folder.

    Args:
        folder: Made if needed; an earlier checkpoint in it is replaced.
        state: What to save.
        lm: The model it belongs to; its fingerprint is noted.
        notes: What else belongs to it, as JSON; kept with it or not at all.

    Raises:
        CheckpointError: The folder cannot be written, or the disk is full.
    """
    tensors: dict[str, Tensor] = {}
    terms: list[dict[str, Any]] = []
    for index, (owner, term) in enumerate(state.memory.terms.items()):
        # Tensors are stored in an order of their own, and the order of modules decides the last bits of a night.
        modules = list(term.factors)
        terms.append({"owner": owner, "scale": term.scale, "weight": term.weight, "modules": modules})
        for module, (a, b) in term.factors.items():
            tensors[f"{index}|{module}|A"] = a.cpu().contiguous()
            tensors[f"{index}|{module}|B"] = b.cpu().contiguous()
    blob = save_tensors(tensors)
    checksum = hashlib.sha256(blob).hexdigest()
    terms_file = f"terms-{checksum[:16]}.safetensors"
    document = {
        "format": FORMAT,
        "model": {"name": lm.name, "fingerprint": lm.fingerprint},
        "terms_file": terms_file,
        "terms_sha256": checksum,
        "terms": terms,
        "version": state.memory.version,
        "capacity": state.ledger.capacity,
        "entries": [asdict(entry) for entry in state.ledger.values()],
        "rng": state.rng.bit_generator.state,
        "tick": state.tick,
        "nights": state.nights,
        "notes": dict(notes or {}),
        "undone": state.undone,
    }
    document["sha256"] = _digest(document)
    contents = {terms_file: blob, _STATE: json.dumps(document, indent=1).encode()}
    try:
        # Tensors first: nothing names them until the JSON takes its place, and with it the checkpoint.
        files.write_all(folder, contents, durable=True)
    except OSError as error:
        raise CheckpointError(
            f"expected to write a checkpoint into {folder}, found {error}; make room, allow writing or choose another "
            "folder (a checkpoint that was there is still whole)"
        ) from error
    finally:
        # Also those of a process that was killed.
        _delete(folder, f"{_TERMS}*{files.PART}", f"{_STATE}*{files.PART}")
    # Not before the new JSON is on disk for good: the earlier one needs the earlier tensors.
    _delete(folder, _TERMS, _TERMS_BEFORE_FORMAT_3, keep=terms_file)


def load(folder: Path, lm: LanguageModel) -> State:
    """Reads the state that :func:`save` wrote; see :func:`load_with_notes`."""
    return load_with_notes(folder, lm)[0]


def load_with_notes(folder: Path, lm: LanguageModel) -> tuple[State, dict[str, Any]]:
    """Reads what :func:`save` wrote.

    Args:
        folder: Where it was saved; other files in it are ignored.
        lm: The model it was saved with.

    Returns:
        The state and the notes.

    Raises:
        CheckpointError: Files are missing or damaged, the format is another, or the model is.
    """
    document = _document(folder)
    model = document.get("model")
    name, fingerprint = (model.get("name"), model.get("fingerprint")) if isinstance(model, dict) else (None, None)
    if fingerprint != lm.fingerprint:
        raise CheckpointError(
            f"expected a checkpoint of {lm.name!r} ({lm.fingerprint[:12]}), found one of "
            f"{name!r} ({str(fingerprint)[:12]}); load the model it was saved with"
        )
    terms_file = str(document.get("terms_file"))
    # Also keeps a forged checkpoint from reaching out of its folder.
    if not fnmatchcase(terms_file, _TERMS):
        raise CheckpointError(
            f"expected {_STATE} in {folder} to name a terms file beside it, found {terms_file!r}; use another copy"
        )
    try:
        blob = (folder / terms_file).read_bytes()
    except OSError as error:
        raise CheckpointError(f"expected {terms_file} beside {_STATE}, found {error}; copy the whole folder") from error
    if hashlib.sha256(blob).hexdigest() != document.get("terms_sha256"):
        raise CheckpointError(
            f"expected {terms_file} in {folder} to match the checksum in {_STATE}, found other content; "
            "the file is damaged, use another copy"
        )
    try:
        return _state(document, load_tensors(blob), lm), dict(document.get("notes", {}))
    except Exception as error:  # whatever a forged file does to the parsers
        raise CheckpointError(
            f"expected well-formed entries and terms in {folder}, found {type(error).__name__}: {error}; "
            "use another copy"
        ) from error


def _document(folder: Path) -> dict[str, Any]:
    """The JSON, if it is of this format and undamaged."""
    try:
        document = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"expected a checkpoint in {folder}, found {error}; check the folder") from error
    found = document.get("format") if isinstance(document, dict) else type(document).__name__
    if found not in READABLE:
        raise CheckpointError(
            f"expected checkpoint format {FORMAT} in {folder}, found {found}; "
            "load it with the version of sleepgym that saved it, or teach the learner anew and save that"
        )
    if document.get("sha256") != _digest(document):
        raise CheckpointError(
            f"expected {_STATE} in {folder} to match its own checksum, found other content; "
            "the file is damaged or was edited, use another copy"
        )
    return document


def _digest(document: dict[str, Any]) -> str:
    """Checksum of everything in the JSON but the checksum, however it is laid out."""
    rest = {key: value for key, value in document.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _delete(folder: Path, *patterns: str, keep: str = "") -> None:
    """Deletes leftovers. One that stays does no harm: nothing names it, and the next save tries again."""
    for path in [path for pattern in patterns for path in folder.glob(pattern) if path.name != keep]:
        with suppress(OSError):
            path.unlink()


def _state(document: dict[str, Any], tensors: dict[str, Tensor], lm: LanguageModel) -> State:
    memory = Memory(version=int(document["version"]))
    factors: list[dict[str, tuple[Tensor, Tensor]]] = [{} for _ in document["terms"]]
    for name in sorted(tensors):
        index, module, part = name.split("|")
        if part == "A":
            device = next(lm.linear(module).parameters()).device
            factors[int(index)][module] = (tensors[name].to(device), tensors[f"{index}|{module}|B"].to(device))
    for term, pairs in zip(document["terms"], factors, strict=True):
        # Checkpoints that were written before modules were listed have them in the order of their names.
        ordered = {module: pairs[module] for module in term.get("modules", pairs)}
        memory.put(term["owner"], ordered, term["scale"], term["weight"])
    memory.version = int(document["version"])
    entries = [_entry(dict(raw)) for raw in document["entries"]]
    rng = np.random.default_rng()
    rng.bit_generator.state = document["rng"]
    return State(
        memory,
        Ledger(document["capacity"], {e.fact.key: e for e in entries}),
        rng,
        int(document["tick"]),
        int(document["nights"]),
        int(document["undone"]),
    )


def _entry(raw: dict[str, Any]) -> Entry:
    fact = raw.pop("fact")
    for name in ("paraphrases", "questions"):
        fact[name] = tuple(fact[name])
    fact["neighbours"] = tuple((prompt, obj) for prompt, obj in fact["neighbours"])
    margin = raw.pop("margin")
    raw.pop("scale", None)  # of format 3: it is the term's
    return Entry(Fact(**fact), margin=margin, **raw)
