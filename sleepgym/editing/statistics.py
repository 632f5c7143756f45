"""What is measured about a model once: second moments of keys, and the text it is held to."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from sleepgym import files
from sleepgym.editing.covariance import second_moments
from sleepgym.editing.spec import EditError, require_layers
from sleepgym.files import cache_dir
from sleepgym.lm.catalogue import CATALOGUE
from sleepgym.lm.generation import Sampling, sampled
from sleepgym.lm.language_model import LanguageModel

Rows = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ModelStatistics:
    """Measured once per model and shipped or cached.

    Attributes:
        moments: Second moment ``[d_in, d_in]`` of keys by layer index.
        rehearsal: Token rows of ordinary text, replayed in sleep so that the rest stays.
        held_out: Token rows on which perplexity is measured, disjoint from rehearsal.
        prefixes: Short contexts in the model's own words, put before prompts.
    """

    moments: dict[int, Tensor]
    rehearsal: Rows
    held_out: Rows
    prefixes: tuple[str, ...]

    def save(self, path: Path, fingerprint: str) -> None:
        """Writes safetensors with the model's fingerprint in the header."""
        # A half-precision Cholesky factor halves the file, and its square is positive whatever the rounding.
        tensors = {f"factor.{layer}": _factor(moment).half().contiguous() for layer, moment in self.moments.items()}
        for name, rows in (("rehearsal", self.rehearsal), ("held_out", self.held_out)):
            tensors[f"{name}.ids"] = torch.tensor([t for row in rows for t in row], dtype=torch.int32)
            tensors[f"{name}.lengths"] = torch.tensor([len(row) for row in rows], dtype=torch.int32)
        files.write(path, save(tensors, metadata={"fingerprint": fingerprint, "prefixes": json.dumps(self.prefixes)}))

    @classmethod
    def read(cls, path: Path, fingerprint: str) -> ModelStatistics | None:
        """Reads a file written by :meth:`save`; None if it is missing, corrupt or of another model."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("fingerprint") != fingerprint:
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except Exception:  # missing or damaged: it is only a cache
            return None

        def rows(name: str) -> Rows:
            lengths = tensors[f"{name}.lengths"].tolist()
            return tuple(tuple(part.tolist()) for part in tensors[f"{name}.ids"].split(lengths))

        factors = {int(n.removeprefix("factor.")): t.float() for n, t in tensors.items() if n.startswith("factor.")}
        moments = {layer: factor @ factor.T for layer, factor in factors.items()}
        return cls(moments, rows("rehearsal"), rows("held_out"), tuple(json.loads(metadata["prefixes"])))


def statistics_for(
    lm: LanguageModel,
    layers: Sequence[int],
    rows: int = 512,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> ModelStatistics:
    """Statistics of a model: those that ship with it, else from the cache, else measured now and cached.

    A model without text of its own is held to text that it writes itself (sampled from its start token).

    Args:
        lm: The bare model.
        layers: Blocks whose second moments are needed.
        rows: Rows of text to sample where none ships.
        progress: Called as ``(what, done, total)``.

    Raises:
        EditError: The model has no such block.
    """
    require_layers(layers, len(lm.blocks), lm.name)
    cached = cache_dir("statistics") / f"{lm.fingerprint[:32]}.safetensors"
    shipped = [entry.statistics for entry in CATALOGUE.values() if entry.statistics is not None]
    kept = (ModelStatistics.read(file, lm.fingerprint) for file in (cached, *shipped))
    found = next((each for each in kept if each is not None), None)
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
        statistics = ModelStatistics(found.moments | measured, found.rehearsal, found.held_out, found.prefixes)
    statistics.save(cached, lm.fingerprint)
    # Read back what later runs will read: half precision must not make the first run differ from them.
    return ModelStatistics.read(cached, lm.fingerprint) or statistics


def _factor(moment: Tensor) -> Tensor:
    """Lower Cholesky factor of a second moment; as little of the identity as needed makes it definite."""
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
    """The first tokens of rows of text, as contexts to put before prompts."""
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
    """Rows of text sampled from the model itself, starting at its start token.

    torch's global random state is put back afterwards: sampling must not disturb a seeded program.
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
