"""Statistics of a model: second moments of keys, rehearsal and held-out text, and prefixes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from pydantic import TypeAdapter
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor

from sleepgym import files
from sleepgym.editing.covariance import second_moments
from sleepgym.editing.spec import EditError, require_layers
from sleepgym.files import cache_dir
from sleepgym.lm.catalogue import CATALOGUE
from sleepgym.lm.generation import Sampling, sampled
from sleepgym.lm.language_model import LanguageModel

Rows = tuple[tuple[int, ...], ...]
"""Rows of token ids."""


@dataclass(frozen=True)
class ModelStatistics:
    """Statistics that are measured once per model and shipped or cached.

    Attributes:
        moments: Second moment ``[d_in, d_in]`` of keys by layer index.
        rehearsal: Token rows of ordinary text that sleep replays to limit drift.
        held_out: Token rows on which perplexity is measured, disjoint from rehearsal.
        prefixes: Short contexts before prompts: the first words of rehearsal rows.
    """

    moments: dict[int, Tensor]
    rehearsal: Rows
    held_out: Rows
    prefixes: tuple[str, ...]

    def save(self, path: Path, fingerprint: str) -> None:
        """Writes safetensors with the model's fingerprint in the header.

        Args:
            path: File to write.
            fingerprint: Fingerprint of the model.

        Raises:
            EditError: A second moment is not positive semi-definite.
            OSError: The file cannot be written.
        """
        files.write(path, self._content(fingerprint))

    def _content(self, fingerprint: str) -> bytes:
        # Half-precision Cholesky factors halve the file, and their products stay positive semi-definite.
        tensors = {f"factor.{layer}": _factor(moment).half().contiguous() for layer, moment in self.moments.items()}
        for name, rows in (("rehearsal", self.rehearsal), ("held_out", self.held_out)):
            tensors[f"{name}.ids"] = torch.tensor([t for row in rows for t in row], dtype=torch.int32)
            tensors[f"{name}.lengths"] = torch.tensor([len(row) for row in rows], dtype=torch.int32)
        return save(tensors, metadata={"fingerprint": fingerprint, "prefixes": json.dumps(self.prefixes)})

    def with_moments_of(self, other: ModelStatistics | None) -> ModelStatistics:
        """Returns these statistics with moments that only others have, if those were measured on the same text."""
        if other is None or (self.rehearsal, self.held_out) != (other.rehearsal, other.held_out):
            return self
        return replace(self, moments=other.moments | self.moments)

    @classmethod
    def read(cls, path: Path, fingerprint: str) -> ModelStatistics | None:
        """Reads a file written by :meth:`save`.

        Returns:
            The statistics; None if the file is missing, corrupt or of another model.
        """
        try:
            about = path.stat()
            return _read_once(path, fingerprint, (about.st_mtime_ns, about.st_size, about.st_ino))
        except Exception:  # missing or damaged files are measured anew
            return None

    @classmethod
    def _read(cls, tensors: Mapping[str, Tensor], prefixes: str) -> ModelStatistics:
        def rows(name: str) -> Rows:
            lengths = tensors[f"{name}.lengths"].tolist()
            return tuple(tuple(part.tolist()) for part in tensors[f"{name}.ids"].split(lengths))

        factors = {int(n.removeprefix("factor.")): t.float() for n, t in tensors.items() if n.startswith("factor.")}
        moments = {layer: factor @ factor.T for layer, factor in factors.items()}
        if not all(moment.isfinite().all() for moment in moments.values()):
            raise ValueError("second moments that are not finite")
        texts = TypeAdapter(tuple[str, ...]).validate_json(prefixes)
        return cls(moments, rows("rehearsal"), rows("held_out"), texts)


@lru_cache(maxsize=4)  # those that ship, and a cached file beside them
def _read_once(path: Path, fingerprint: str, version: tuple[int, ...]) -> ModelStatistics | None:
    # Every editing recipe asks for them and nobody changes them; multiplying the factors takes tenths of a second.
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("fingerprint") != fingerprint:
            return None
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    return ModelStatistics._read(tensors, metadata["prefixes"])


def statistics_for(
    lm: LanguageModel,
    layers: Sequence[int],
    rows: int = 512,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> ModelStatistics:
    """Returns the statistics of a model: shipped ones, else cached ones, else measured and cached now.

    Second moments that do not ship are measured on the text that ships, and cached. Text of a model for which none
    ships is sampled from the model itself, starting at its start token.

    Args:
        lm: The bare model.
        layers: Blocks whose second moments are needed.
        rows: Number of rows to sample if no text ships.
        progress: Called as ``(task, done, total)``.

    Raises:
        EditError: The model has no such block.
    """
    require_layers(layers, len(lm.blocks), lm.name)
    cached = cache_dir("statistics") / f"{lm.fingerprint[:32]}.safetensors"
    kept = ModelStatistics.read(cached, lm.fingerprint)
    files_that_ship = (entry.statistics for entry in CATALOGUE.values() if entry.statistics is not None)
    read = (ModelStatistics.read(file, lm.fingerprint) for file in files_that_ship)
    shipped = next((each for each in read if each is not None), None)
    # A cache outlives the text that it was made of: what was measured on other text is measured again.
    found = kept if shipped is None else shipped.with_moments_of(kept)
    if found is not None and set(layers) <= set(found.moments):
        return found
    text = [*found.rehearsal, *found.held_out] if found else sample_text(lm, rows, progress=progress)
    missing = [layer for layer in layers if found is None or layer not in found.moments]
    measured = second_moments(lm, text, missing, progress=lambda done: progress("second moments", done, len(text)))
    if found is None:
        held_out = len(text) // 4
        statistics = ModelStatistics(
            measured, tuple(text[held_out:]), tuple(text[:held_out]), prefixes_from(lm, text[held_out:])
        )
    else:
        statistics = replace(found, moments=found.moments | measured)
    content = statistics._content(lm.fingerprint)
    files.keep(cached, content)
    # As a file of it will be read, so that the first run uses the same half-precision values as later ones.
    again = ModelStatistics._read(load(content), json.dumps(statistics.prefixes))
    return again if shipped is None else shipped.with_moments_of(again)


def _factor(moment: Tensor) -> Tensor:
    """Returns the lower Cholesky factor of a second moment, with the smallest ridge of a few that makes it definite."""
    mean = moment.diagonal().double().mean()
    for share in (1e-6, 1e-5, 1e-4, 1e-3):
        factor, failed = torch.linalg.cholesky_ex(
            moment.double() + share * mean * torch.eye(len(moment), dtype=torch.float64)
        )
        if not failed:
            return factor
    raise EditError(
        "expected a second moment that is positive semi-definite, found one that is not; measure it on more text"
    )


def prefixes_from(
    lm: LanguageModel, text: Sequence[Sequence[int]], count: int = 8, tokens: int = 10
) -> tuple[str, ...]:
    """Returns the first tokens of rows of text, as contexts before prompts.

    Args:
        lm: The model.
        text: Token rows.
        count: Maximum number of prefixes.
        tokens: Tokens per prefix after the start token; rows without a start token give one more.
    """
    special = {lm.tokenizer.bos_token_id}
    starts = [[t for t in row[: tokens + 1] if t not in special] for row in text[:count]]
    return tuple(str(lm.tokenizer.decode(ids)).strip() for ids in starts)


@torch.no_grad()
def sample_text(
    lm: LanguageModel,
    rows: int,
    tokens: int = 48,
    seed: int = 0,
    batch_rows: int = 64,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[tuple[int, ...]]:
    """Samples rows of text from the model itself, starting at its start token.

    torch's global random state is restored afterwards, so that sampling does not affect a seeded program.

    Args:
        lm: The bare model.
        rows: Number of rows.
        tokens: Maximum number of new tokens per row.
        seed: Seed of torch's generator.
        batch_rows: Rows per pass.
        progress: Called as ``(task, done, total)``.

    Returns:
        Token rows without padding.
    """
    start = lm.tokenizer.bos_token_id
    start = start if start is not None else lm.tokenizer.eos_token_id or 0
    out: list[tuple[int, ...]] = []
    devices = [lm.device] if lm.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        while len(out) < rows:
            ids = torch.full((min(batch_rows, rows - len(out)), 1), start, device=lm.device)
            grown = sampled(lm, ids, sampling=Sampling(), max_new_tokens=tokens, min_new_tokens=min(8, tokens))
            out += [_trim(row, lm.tokenizer.pad_token_id) for row in grown.tolist()]
            progress("sampling text", len(out), rows)
    return out


def _trim(row: list[int], pad: int | None) -> tuple[int, ...]:
    end = len(row)
    while end > 2 and row[end - 1] == pad:
        end -= 1
    return tuple(row[:end])
