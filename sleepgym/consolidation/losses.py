"""Terms of a night's loss, each for several trainings at once: lessons, rehearsal text and held answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from sleepgym.lm.continuation import start_at
from sleepgym.lm.encoding import Encoded
from sleepgym.lm.probes import object_positions
from sleepgym.memory.overlay import Memory, Overlay, Term
from sleepgym.memory.rehearsal import Rehearsal

T = TypeVar("T")

_NUMBERS = 2**24
"""Maximum number of a reference's log-probabilities that are kept for a night; if more, they are computed each time."""

_ROWS = 256
"""Maximum number of rows per pass without gradients."""


class AnswerRows:
    """Prompts with objects of several trainings, of which everything below a block is run once.

    They are padded to the same number per training.

    Args:
        overlay: The model with hooks.
        rows: Prompts with objects by training, not all of them empty.
        linears: Names of the linears with a term of any memory in use.
    """

    def __init__(self, overlay: Overlay, rows: Sequence[Sequence[Encoded]], linears: Collection[str]) -> None:
        self._overlay = overlay
        self._width = max(map(len, rows))
        filler = next(chain.from_iterable(rows))
        self._rows = [row for group in rows for row in [*group, *[filler] * (self._width - len(group))]]
        # The prediction at the last token is never read.
        ids, starts = [row.ids[:-1] for row in self._rows], [row.object_start - 1 for row in self._rows]
        self._run = self._overlay.continuation(ids, linears, starts)

    def log_probs(
        self, chosen: Mapping[int, Sequence[int]], memories: Sequence[Memory], adapters: Sequence[Term] = ()
    ) -> tuple[Tensor, Tensor]:
        """Returns what is predicted at every token of the chosen objects.

        Args:
            chosen: Indices of rows by index of training, as :func:`evened` makes them.
            memories: One memory per chosen training.
            adapters: Adapters in training, one per chosen training.

        Returns:
            Log-probabilities ``[tokens, vocabulary]``, and each token's row among the chosen, ``[tokens]``.
        """
        picks = self._picks(chosen)
        run = self._run.select(torch.tensor(picks, device=self._overlay.lm.device))
        rows, columns = (t.to(self._overlay.lm.device) for t in object_positions([self._rows[k] for k in picks]))
        with self._overlay.use(memories, adapters):
            log_p = run.logits(rows, columns - 1, narrow=True).log_softmax(-1)
        return log_p, rows.to(log_p.device)

    @property
    def numbers(self) -> int:
        """Log-probabilities at all tokens of all objects."""
        return self._overlay.lm.vocabulary * sum(len(row.object_ids) for row in self._rows)

    def targets(self, chosen: Mapping[int, Sequence[int]]) -> list[int]:
        """Returns the tokens of the chosen objects."""
        return [token for k in self._picks(chosen) for token in self._rows[k].object_ids]

    def _picks(self, chosen: Mapping[int, Sequence[int]]) -> list[int]:
        return [i * self._width + k for i, group in chosen.items() for k in group]


class Lessons:
    """Lessons of all trainings.

    Args:
        overlay: The model with hooks.
        memories: Memory of each training.
        rows: Lessons of each training.
        linears: See :class:`AnswerRows`.
    """

    def __init__(
        self, overlay: Overlay, memories: Sequence[Memory], rows: Sequence[Sequence[Encoded]], linears: Collection[str]
    ) -> None:
        self._memories, self._sizes = memories, [len(group) for group in rows]
        self._rows = AnswerRows(overlay, rows, linears) if any(rows) else None

    @torch.no_grad()
    def nll_of_run(self, i: int, adapter: Term) -> Tensor:
        """Returns the mean NLL per object token of every lesson of one training, ``[lessons]``."""
        return torch.cat([torch.empty(0), *(self.nll({i: p}, [adapter])[0].cpu() for p in _parts(self._sizes[i]))])

    def nll(self, chosen: Mapping[int, Sequence[int]], adapters: Sequence[Term]) -> Tensor:
        """Returns the mean NLL per object token of the chosen lessons.

        Args:
            chosen: Indices of lessons by index of training.
            adapters: Adapters in training, one per chosen training.

        Returns:
            ``[trainings, lessons]``; shorter rows are padded with the NLL of their first lesson.
        """
        assert self._rows is not None  # whoever chose one has one
        even = evened(chosen)
        log_p, rows = self._rows.log_probs(even, [self._memories[i] for i in even], adapters)
        targets = torch.tensor(self._rows.targets(even), device=log_p.device)
        nll = -log_p.gather(1, targets[:, None]).squeeze(1)
        return _mean_of_rows(nll, rows).view(len(even), -1)


class Held:
    """Questions of all trainings, with the answers that reference memories give.

    Args:
        overlay: The model with hooks.
        memories: Memory of each training.
        references: Memory whose answers are held, for each training.
        rows: Questions with the references' answers, not all of them empty.
        linears: See :class:`AnswerRows`.
    """

    def __init__(
        self,
        overlay: Overlay,
        memories: Sequence[Memory],
        references: Sequence[Memory],
        rows: Sequence[Sequence[Encoded]],
        linears: Collection[str],
    ) -> None:
        self._memories, self._references, self._sizes = memories, references, [len(group) for group in rows]
        self._rows = AnswerRows(overlay, rows, linears)
        self._wanted = self._all_wanted() if self._rows.numbers <= _NUMBERS else None

    @torch.no_grad()
    def _all_wanted(self) -> list[list[Tensor]]:
        """Returns the references' log-probabilities of answers, ``[tokens, vocabulary]`` per question and training."""
        wanted: list[list[Tensor]] = []
        for i, size in enumerate(self._sizes):
            wanted.append([])
            for part in _parts(size):
                p, rows = self._rows.log_probs({i: part}, [self._references[i]])
                wanted[i] += p.split(torch.bincount(rows).tolist())
        return wanted

    @torch.no_grad()
    def divergences_of_run(self, i: int, adapter: Term) -> Tensor:
        """Returns KL(reference || trained) of every answer of one training, ``[questions]``."""
        return torch.cat(
            [torch.empty(0), *(self.divergences({i: p}, [adapter])[0].cpu() for p in _parts(self._sizes[i]))]
        )

    def divergences(self, chosen: Mapping[int, Sequence[int]], adapters: Sequence[Term]) -> list[Tensor]:
        """Returns KL(reference || trained), averaged over the tokens of each answer: per training ``[questions]``.

        Args:
            chosen: Indices of questions by index of training, at least one each.
            adapters: Adapters in training, one per chosen training.
        """
        even = evened(chosen)
        if self._wanted is not None:
            p = torch.cat([self._wanted[i][k] for i, group in even.items() for k in group])
        else:
            with torch.no_grad():
                p, _ = self._rows.log_probs(even, [self._references[i] for i in even])
        q, rows = self._rows.log_probs(even, [self._memories[i] for i in even], adapters)
        by_row = _mean_of_rows(_divergence(p, q), rows).view(len(even), -1)
        return [row[: len(group)] for row, group in zip(by_row, chosen.values(), strict=True)]


class Texts:
    """Rehearsal rows, on the base and on the trained model.

    Args:
        rehearsal: The model, and text to draw from.
        linears: See :class:`AnswerRows`.
    """

    def __init__(self, rehearsal: Rehearsal, linears: Collection[str]) -> None:
        self._overlay, lm = rehearsal.overlay, rehearsal.overlay.lm
        self._run, self._bare = rehearsal.run(start_at(lm, linears).block), rehearsal.run(len(lm.blocks))

    def divergence(
        self, drawn: Sequence[Mapping[int, Sequence[int]]], memories: Sequence[Memory], adapters: Sequence[Term]
    ) -> Tensor:
        """Returns KL(bare || trained), averaged over the drawn tokens of each training, ``[trainings]``.

        Args:
            drawn: Per training the positions to read by index of rehearsal row; as many rows for each.
            memories: One memory per training.
            adapters: Adapters in training, one per training.
        """
        device = self._overlay.lm.device
        texts = [(row, columns) for each in drawn for row, columns in each.items()]
        chosen = torch.tensor([row for row, _ in texts], device=device)
        counts = torch.tensor([len(columns) for _, columns in texts])
        rows = torch.repeat_interleave(torch.arange(len(texts)), counts).to(device)
        columns = torch.tensor([column for _, columns in texts for column in columns], device=device)
        with torch.no_grad(), self._overlay.use(()):
            p = self._bare.select(chosen).logits(rows, columns).log_softmax(-1)
        with self._overlay.use(memories, adapters):
            q = self._run.select(chosen).logits(rows, columns, narrow=True).log_softmax(-1)
        return _mean_of_rows(_divergence(p, q), (rows // len(drawn[0])).to(q.device))


def evened(chosen: Mapping[int, Sequence[T]]) -> dict[int, list[T]]:
    """Pads groups to the same size with their first item, since memories share out a batch evenly."""
    width = max(map(len, chosen.values()))
    return {i: [*group, *[group[0]] * (width - len(group))] for i, group in chosen.items()}


def _parts(count: int) -> list[range]:
    """Returns the indices below a number, as many at once as run in one pass without gradients."""
    return [range(start, min(start + _ROWS, count)) for start in range(0, count, _ROWS)]


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """Returns KL(p || q) per token, ``[tokens]``, of log-probabilities ``[tokens, vocabulary]``."""
    return kl_div(q, p, log_target=True, reduction="none").sum(-1)


def _mean_of_rows(values: Tensor, rows: Tensor) -> Tensor:
    """Returns the mean of the values ``[tokens]`` of each row, ``[rows]``."""
    counts = torch.bincount(rows)
    return values.new_zeros(len(counts)).index_add(0, rows, values) / counts
