"""Checkpoints of a learner's state: safetensors for tensors, JSON for the rest, no executable content.

The JSON names the tensor file that it belongs to, so that replacing one small file replaces the whole checkpoint
atomically.
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
from sleepgym.memory.settled import Settled
from sleepgym.memory.state import State

FORMAT = 6
"""Format version that :func:`save` writes."""
READABLE = (3, 4, 5, 6)
"""Format versions that :func:`load` reads.

Formats before 6 know no gates; those before 5 know no settled facts and count no nights held; format 3 stored the scale
of an edit in its entry too.
"""
_STATE = "state.json"
# Named after a hash of the content, so that new tensors never overwrite those that the JSON on disk still names.
_TERMS = "terms-" + 16 * "[0-9a-f]" + ".safetensors"
_TERMS_BEFORE_FORMAT_3 = "terms.safetensors"


class CheckpointError(SleepGymError, RuntimeError):
    """A checkpoint cannot be read or written; the learner and any earlier checkpoint are unchanged."""


class Model(Protocol):
    """Identity of a model, as a checkpoint records it."""

    @property
    def name(self) -> str:
        """Name of the model, for error messages."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of the model; a checkpoint loads only with an equal one."""
        ...


def save(folder: Path, state: State, lm: Model, notes: Mapping[str, Any] | None = None) -> None:
    """Writes ``state.json`` and the tensor file that it names, atomically.

    If it is interrupted (a kill, a power cut, a full disk), the folder loads as the earlier checkpoint or as this one.
    Only one process at a time may save into a folder.

    Args:
        folder: Folder of the checkpoint; created if needed, and an earlier checkpoint in it is replaced.
        state: State to save.
        lm: Model that the state belongs to; its name and fingerprint are recorded.
        notes: Further JSON-serialisable data, saved in the same transaction.

    Raises:
        CheckpointError: The folder cannot be written, or the disk is full.
    """
    tensors: dict[str, Tensor] = {}
    terms: list[dict[str, Any]] = []
    for index, (owner, term) in enumerate(state.memory.terms.items()):
        # safetensors reorders tensors, and the order of modules changes floating-point sums during a night.
        modules = list(term.factors)
        terms.append({"owner": owner, "scale": term.scale, "weight": term.weight, "modules": modules})
        for module, gate in term.gates.items():
            tensors[f"{index}|{module}|gates"] = gate.cpu().contiguous()
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
        "settled": [asdict(settled) for settled in state.settled.values()],
        "rng": state.rng.bit_generator.state,
        "tick": state.tick,
        "nights": state.nights,
        "notes": dict(notes or {}),
        "undone": state.undone,
    }
    document["sha256"] = _digest(document)
    contents = {terms_file: blob, _STATE: json.dumps(document, indent=1).encode()}
    try:
        # Tensors first: the checkpoint takes effect when the JSON that names them is replaced.
        files.write_all(folder, contents, durable=True)
    except OSError as error:
        raise CheckpointError(
            f"expected to write a checkpoint into {folder}, found {error}; make room, allow writing or choose another "
            "folder (a checkpoint that was there is still whole)"
        ) from error
    finally:
        # Includes leftovers of a killed process.
        _delete(folder, f"{_TERMS}*{files.PART}", f"{_STATE}*{files.PART}")
    # Only once the new JSON is durable: until then the earlier JSON still needs the earlier tensors.
    _delete(folder, _TERMS, _TERMS_BEFORE_FORMAT_3, keep=terms_file)


def load(folder: Path, lm: LanguageModel) -> State:
    """Reads the state that :func:`save` wrote, without the notes; see :func:`load_with_notes`."""
    return load_with_notes(folder, lm)[0]


def load_with_notes(folder: Path, lm: LanguageModel) -> tuple[State, dict[str, Any]]:
    """Reads the state and the notes that :func:`save` wrote.

    Args:
        folder: Folder of the checkpoint; other files in it are ignored.
        lm: Model that the checkpoint was saved with.

    Returns:
        The state, with factors on the devices of their modules, and the notes.

    Raises:
        CheckpointError: Files are missing or damaged, or the format or the model differs.
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
    # Also keeps a forged checkpoint from naming files outside its folder.
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
    except Exception as error:  # a forged file can make the parsers raise anything
        raise CheckpointError(
            f"expected well-formed entries and terms in {folder}, found {type(error).__name__}: {error}; "
            "use another copy"
        ) from error


def _document(folder: Path) -> dict[str, Any]:
    """Reads the JSON and checks its format and checksum."""
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
    """Returns the SHA-256 of the document without its own checksum, independent of layout and key order."""
    rest = {key: value for key, value in document.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _delete(folder: Path, *patterns: str, keep: str = "") -> None:
    """Deletes unreferenced files, best effort: one that cannot be deleted is harmless, and the next save retries."""
    for path in [path for pattern in patterns for path in folder.glob(pattern) if path.name != keep]:
        with suppress(OSError):
            path.unlink()


def _state(document: dict[str, Any], tensors: dict[str, Tensor], lm: LanguageModel) -> State:
    memory = Memory(version=int(document["version"]))
    factors: list[dict[str, tuple[Tensor, Tensor]]] = [{} for _ in document["terms"]]
    gates: list[dict[str, Tensor]] = [{} for _ in document["terms"]]
    for name in sorted(tensors):
        index, module, part = name.split("|")
        device = next(lm.linear(module).parameters()).device
        if part == "gates":
            gates[int(index)][module] = tensors[name].to(device)
        if part == "A":
            factors[int(index)][module] = (tensors[name].to(device), tensors[f"{index}|{module}|B"].to(device))
    for term, pairs, of_term in zip(document["terms"], factors, gates, strict=True):
        # Older checkpoints do not list modules; theirs are in the order of their names.
        ordered = {module: pairs[module] for module in term.get("modules", pairs)}
        memory.put(term["owner"], ordered, term["scale"], term["weight"], of_term)
    memory.version = int(document["version"])
    entries = [_entry(dict(raw)) for raw in document["entries"]]
    settled = [Settled(**raw) for raw in (document["settled"] if document["format"] >= 5 else [])]
    rng = np.random.default_rng()
    rng.bit_generator.state = document["rng"]
    return State(
        memory,
        Ledger(document["capacity"], {e.fact.key: e for e in entries}),
        rng,
        int(document["tick"]),
        int(document["nights"]),
        int(document["undone"]),
        {each.key: each for each in settled},
    )


def _entry(raw: dict[str, Any]) -> Entry:
    fact = raw.pop("fact")
    for name in ("paraphrases", "questions"):
        fact[name] = tuple(fact[name])
    fact["neighbours"] = tuple((prompt, obj) for prompt, obj in fact["neighbours"])
    margin = raw.pop("margin")
    raw.pop("scale", None)  # format 3 only: the scale belongs to the term
    raw.setdefault("held", raw["stage"])  # before format 5: a fact rose about a stage a night
    return Entry(Fact(**fact), margin=margin, **raw)
