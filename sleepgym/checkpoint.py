"""Saves and loads a learner's state: safetensors for numbers, JSON for the rest, nothing that can run."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from sleepgym.facts.fact import Fact
from sleepgym.ledger import Entry, Ledger
from sleepgym.lm.language_model import LanguageModel
from sleepgym.overlay import Memory
from sleepgym.state import State

FORMAT = 2
_STATE, _TERMS = "state.json", "terms.safetensors"


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used; nothing was changed."""


def save(folder: Path, state: State, lm: LanguageModel) -> None:
    """Writes ``state.json`` and ``terms.safetensors``.

    Args:
        folder: Made if needed; an earlier checkpoint in it is replaced.
        state: What to save.
        lm: The model it belongs to; its fingerprint is noted.
    """
    tensors: dict[str, Tensor] = {}
    terms: list[dict[str, Any]] = []
    for index, (owner, term) in enumerate(state.memory.terms.items()):
        terms.append({"owner": owner, "scale": term.scale, "weight": term.weight})
        for module, (a, b) in term.factors.items():
            tensors[f"{index}|{module}|A"] = a.cpu().contiguous()
            tensors[f"{index}|{module}|B"] = b.cpu().contiguous()
    blob = save_tensors(tensors)
    document = {
        "format": FORMAT,
        "model": {"name": lm.name, "fingerprint": lm.fingerprint},
        "terms_sha256": hashlib.sha256(blob).hexdigest(),
        "terms": terms,
        "version": state.memory.version,
        "capacity": state.ledger.capacity,
        # JSON has no NaN: a margin that was never measured is null.
        "entries": [{**asdict(e), "margin": None if math.isnan(e.margin) else e.margin} for e in state.ledger.values()],
        "rng": state.rng.bit_generator.state,
        "tick": state.tick,
    }
    text = json.dumps(document, indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in ((_TERMS, blob), (_STATE, text.encode())):
        part = folder / (name + ".part")
        part.write_bytes(data)
        part.replace(folder / name)


def load(folder: Path, lm: LanguageModel) -> State:
    """Reads what :func:`save` wrote.

    Raises:
        CheckpointError: Files are missing or damaged, the format is unknown, or the model is another one.
    """
    try:
        document = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        blob = (folder / _TERMS).read_bytes()
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"expected a checkpoint ({_STATE} and {_TERMS}) in {folder}, found {error}; check the folder"
        ) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise CheckpointError(f"expected checkpoint format {FORMAT} in {folder}, found {found}; save it anew")
    model = document.get("model")
    name, fingerprint = (model.get("name"), model.get("fingerprint")) if isinstance(model, dict) else (None, None)
    if fingerprint != lm.fingerprint:
        raise CheckpointError(
            f"expected a checkpoint of {lm.name!r} ({lm.fingerprint[:12]}), found one of "
            f"{name!r} ({str(fingerprint)[:12]}); load the model it was saved with"
        )
    if hashlib.sha256(blob).hexdigest() != document.get("terms_sha256"):
        raise CheckpointError(
            f"expected {_TERMS} in {folder} to match the checksum in {_STATE}, found other content; "
            "the file is damaged, use another copy"
        )
    try:
        return _state(document, load_tensors(blob), lm)
    except Exception as error:  # whatever a hand-edited file does to the parsers
        raise CheckpointError(
            f"expected well-formed entries and terms in {folder}, found {type(error).__name__}: {error}"
        ) from error


def _state(document: dict[str, Any], tensors: dict[str, Tensor], lm: LanguageModel) -> State:
    memory = Memory(version=int(document["version"]))
    factors: list[dict[str, tuple[Tensor, Tensor]]] = [{} for _ in document["terms"]]
    for name in sorted(tensors):
        index, module, part = name.split("|")
        if part == "A":
            device = next(lm.linear(module).parameters()).device
            factors[int(index)][module] = (tensors[name].to(device), tensors[f"{index}|{module}|B"].to(device))
    for term, pairs in zip(document["terms"], factors, strict=True):
        memory.put(term["owner"], pairs, term["scale"], term["weight"])
    memory.version = int(document["version"])
    entries = [_entry(dict(raw)) for raw in document["entries"]]
    rng = np.random.default_rng()
    rng.bit_generator.state = document["rng"]
    return State(memory, Ledger(document["capacity"], {e.fact.key: e for e in entries}), rng, int(document["tick"]))


def _entry(raw: dict[str, Any]) -> Entry:
    fact = raw.pop("fact")
    for name in ("paraphrases", "questions"):
        fact[name] = tuple(fact[name])
    fact["neighbours"] = tuple((prompt, obj) for prompt, obj in fact["neighbours"])
    margin = raw.pop("margin")
    return Entry(Fact(**fact), margin=math.nan if margin is None else margin, **raw)
