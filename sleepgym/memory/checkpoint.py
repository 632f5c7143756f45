"""Checkpoints of a learner's state: safetensors for tensors, JSON for the rest, no executable content.

The JSON names the tensor file that it belongs to, so that replacing one small file replaces the whole checkpoint
atomically.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel, NonNegativeInt
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from sleepgym import files
from sleepgym.errors import SleepGymError
from sleepgym.lm.architecture import features
from sleepgym.lm.language_model import LanguageModel
from sleepgym.memory.ledger import Entry, Ledger
from sleepgym.memory.overlay import Memory
from sleepgym.memory.settled import Settled
from sleepgym.memory.state import State
from sleepgym.reading import MAX_TENSOR_BYTES, UnreadableError, found_in, read_bytes, read_json

FORMAT = 6
"""Format version that :func:`save` writes."""
READABLE = (3, 4, 5, 6)
"""Format versions that :func:`load` reads.

Formats before 6 know no gates; those before 5 know no settled facts and count no nights held; format 3 stored the scale
of an edit in its entry too.
"""
_STATE = "state.json"
_MAX_STATE_BYTES = 2**28
"""Size of the largest JSON that is read: a hundred thousand facts with their paraphrases and questions."""
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
            f"{reprlib.repr(name)} ({str(fingerprint)[:12]}); load the model it was saved with"
        )
    terms_file = str(document.get("terms_file"))
    # Also keeps a forged checkpoint from naming files outside its folder.
    if not fnmatchcase(terms_file, _TERMS):
        raise CheckpointError(
            f"expected {_STATE} in {folder} to name a terms file beside it, found "
            f"{reprlib.repr(terms_file)}; use another copy"
        )
    try:
        blob = read_bytes(folder / terms_file, MAX_TENSOR_BYTES, inside=folder)
    except (OSError, UnreadableError) as error:
        what = error.found if isinstance(error, UnreadableError) else error
        raise CheckpointError(f"expected {terms_file} beside {_STATE}, found {what}; copy the whole folder") from error
    if hashlib.sha256(blob).hexdigest() != document.get("terms_sha256"):
        raise CheckpointError(
            f"expected {terms_file} in {folder} to match the checksum in {_STATE}, found other content; "
            "the file is damaged, use another copy"
        )
    try:
        return _state(document, load_tensors(blob), lm), dict(document.get("notes", {}))
    except Exception as error:  # a forged file can make the parsers raise anything
        raise CheckpointError(
            f"expected well-formed entries and terms in {folder}, found {found_in(error)}; use another copy"
        ) from error


def _document(folder: Path) -> dict[str, Any]:
    """Reads the JSON and checks its format and checksum."""
    try:
        document = read_json(folder / _STATE, _MAX_STATE_BYTES, inside=folder)
    except (OSError, UnreadableError) as error:
        what = error.found if isinstance(error, UnreadableError) else error
        raise CheckpointError(f"expected a checkpoint in {folder}, found {what}; check the folder") from error
    found = document.get("format") if isinstance(document, dict) else type(document).__name__
    if not isinstance(found, int) or found not in READABLE:
        raise CheckpointError(
            f"expected checkpoint format {FORMAT} in {folder}, found {reprlib.repr(found)}; "
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


class _Term(BaseModel):
    """A term without its factors."""

    owner: str
    scale: float
    weight: float
    modules: tuple[str, ...] | None = None


class _Contents(BaseModel):
    """What the JSON says beside where it belongs."""

    version: NonNegativeInt
    capacity: NonNegativeInt
    tick: NonNegativeInt
    nights: NonNegativeInt
    undone: NonNegativeInt
    rng: dict[str, Any]
    terms: tuple[_Term, ...]
    entries: tuple[Entry, ...]
    settled: tuple[Settled, ...] = ()


def _state(document: dict[str, Any], tensors: dict[str, Tensor], lm: LanguageModel) -> State:
    if document["format"] >= 5:
        document["settled"]  # older formats know none
    contents = _Contents.model_validate({**document, "entries": [_entry(raw) for raw in document["entries"]]})
    if strangers := {name.split("|")[0] for name in tensors} - set(map(str, range(len(contents.terms)))):
        raise ValueError(f"factors of terms {sorted(strangers)}, which are not listed")
    memory = Memory(version=contents.version)
    for index, term in enumerate(contents.terms):
        factors, gates = _factors(f"{index}|", tensors, lm)
        # Older checkpoints do not list modules; theirs are in the order of their names.
        modules = factors if term.modules is None else term.modules
        if sorted(modules) != sorted(factors):
            raise ValueError(f"factors on {sorted(factors)} of a term on {sorted(modules)}")
        memory.put(term.owner, {module: factors[module] for module in modules}, term.scale, term.weight, gates)
    memory.version = contents.version
    for entry in contents.entries:
        if min(entry.stage, entry.writes, entry.trained_at, entry.held) < 0:
            raise ValueError(f"a number below 0 in the entry of {entry.fact.key}")
    rng = np.random.default_rng()
    rng.bit_generator.state = contents.rng
    return State(
        memory,
        Ledger(contents.capacity, {entry.fact.key: entry for entry in contents.entries}),
        rng,
        contents.tick,
        contents.nights,
        contents.undone,
        {each.key: each for each in contents.settled},
    )


def _factors(
    prefix: str, tensors: dict[str, Tensor], lm: LanguageModel
) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """Factors and gates of a term by module, on the devices of their modules.

    Raises:
        ValueError: They do not fit the modules.
    """
    factors, gates = {}, {}
    for module in sorted({name.split("|")[1] for name in tensors if name.startswith(prefix)}):
        linear = lm.linear(module)
        device, (d_in, d_out) = next(linear.parameters()).device, features(linear)
        a, b = (tensors[f"{prefix}{module}|{part}"] for part in "AB")
        gate = tensors.get(f"{prefix}{module}|gates")
        rank = len(a)
        if a.shape != (rank, d_in) or b.shape != (d_out, rank) or (gate is not None and gate.shape != (rank,)):
            raise ValueError(f"factors {list(a.shape)} and {list(b.shape)} of {module}, which has {d_in} to {d_out}")
        if not all(part.is_floating_point() for part in (a, b, *(() if gate is None else (gate,)))):
            raise ValueError(f"factors of {module} that are no floating-point numbers")
        factors[module] = (a.to(device), b.to(device))
        if gate is not None:
            gates[module] = gate.to(device)
    return factors, gates


def _entry(raw: dict[str, Any]) -> dict[str, Any]:
    """An entry as the present format has it."""
    entry = {name: value for name, value in raw.items() if name != "scale"}  # format 3 only: it belongs to the term
    entry.setdefault("held", raw["stage"])  # before format 5: a fact rose about a stage a night
    return entry
