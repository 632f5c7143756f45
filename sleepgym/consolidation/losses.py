"""Terms of a night's loss, each for several trainings at once: lessons, rehearsal text and held answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, zip_longest
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

Chosen = Mapping[int, Sequence[int]]
"""Indices of rows by index of training."""

_NUMBERS = 2**24
"""Maximum number of logits of one training in a pass; and of log-probabilities of a reference kept for a night.
If those are more, they are computed each time."""

_ROWS = 256
"""Maximum number of rows of one training in a pass."""


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

    def parts(self, chosen: Chosen) -> list[Chosen]:
        """Divides rows for several passes, so that answers of a large vocabulary do not outgrow the memory.

        Args:
            chosen: Rows by index of training.

        Returns:
            The same rows in their order; trainings with few rows take part in the first ones only.
        """
        divided = zip_longest(*(self._divided(i, group) for i, group in chosen.items()))
        return [{i: rows for i, rows in zip(chosen, part, strict=True) if rows} for part in divided]

    def _divided(self, i: int, group: Sequence[int]) -> list[list[int]]:
        parts: list[list[int]] = []
        room = 0
        for k in group:
            tokens = self._tokens(i, [k])
            if not parts or tokens > room or len(parts[-1]) == _ROWS:
                parts.append([])
                room = _NUMBERS // self._overlay.lm.vocabulary
            parts[-1].append(k)
            room -= tokens
        return parts

    def numbers(self, chosen: Chosen) -> int:
        """Returns the number of logits of a pass, of the training that has most."""
        return self._overlay.lm.vocabulary * max(self._tokens(i, group) for i, group in chosen.items())

    def _tokens(self, i: int, group: Sequence[int]) -> int:
        return sum(len(self._rows[i * self._width + k].object_ids) for k in group)

    def log_probs(
        self, chosen: Chosen, memories: Sequence[Memory], adapters: Sequence[Term] = ()
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
    def all_numbers(self) -> int:
        """Log-probabilities at all tokens of all objects."""
        return self._overlay.lm.vocabulary * sum(len(row.object_ids) for row in self._rows)

    def targets(self, chosen: Chosen) -> list[int]:
        """Returns the tokens of the chosen objects."""
        return [token for k in self._picks(chosen) for token in self._rows[k].object_ids]

    def _picks(self, chosen: Chosen) -> list[int]:
        return [i * self._width + k for i, group in chosen.items() for k in group]


class Answers(ABC):
    """Prompts with objects of all trainings, and how far a training is from what it wants of them.

    Args:
        overlay: The model with hooks.
        memories: Memory of each training.
        rows: Prompts with objects of each training, not all of them empty.
        linears: See :class:`AnswerRows`.

    Attributes:
        rows: The prompts.
    """

    def __init__(
        self, overlay: Overlay, memories: Sequence[Memory], rows: Sequence[Sequence[Encoded]], linears: Collection[str]
    ) -> None:
        self._memories, self._sizes = memories, [len(group) for group in rows]
        self.rows = AnswerRows(overlay, rows, linears)

    @abstractmethod
    def measured(self, chosen: Chosen, adapters: Sequence[Term]) -> list[Tensor]:
        """Measures chosen rows.

        Args:
            chosen: Indices of rows by index of training, at least one each.
            adapters: Adapters in training, one per chosen training.

        Returns:
            Mean over the tokens of each row's object, ``[rows]`` per training.
        """

    @torch.no_grad()
    def all_measured(self, i: int, adapter: Term) -> Tensor:
        """Measures every row of one training, ``[rows]``."""
        parts = self.rows.parts({i: range(self._sizes[i])})
        return torch.cat([torch.empty(0), *(self.measured(part, [adapter])[0].cpu() for part in parts)])


class Lessons(Answers):
    """Lessons of all trainings: what is measured is their NLL."""

    def measured(self, chosen: Chosen, adapters: Sequence[Term]) -> list[Tensor]:
        """See :meth:`Answers.measured`; nats."""
        even = evened(chosen)
        log_p, rows = self.rows.log_probs(even, [self._memories[i] for i in even], adapters)
        targets = torch.tensor(self.rows.targets(even), device=log_p.device)
        nll = -log_p.gather(1, targets[:, None]).squeeze(1)
        return _by_training(nll, rows, chosen)


class Held(Answers):
    """Questions of all trainings, with the answers that reference memories give: KL(reference || trained) is measured.

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
        super().__init__(overlay, memories, rows, linears)
        self._references = references
        self._wanted = self._all_wanted() if self.rows.all_numbers <= _NUMBERS else None

    @torch.no_grad()
    def _all_wanted(self) -> list[list[Tensor]]:
        """Returns the references' log-probabilities of answers, ``[tokens, vocabulary]`` per question and training."""
        wanted: list[list[Tensor]] = []
        for i, size in enumerate(self._sizes):
            wanted.append([])
            for part in self.rows.parts({i: range(size)}):
                p, rows = self.rows.log_probs(part, [self._references[i]])
                wanted[i] += p.split(torch.bincount(rows).tolist())
        return wanted

    def measured(self, chosen: Chosen, adapters: Sequence[Term]) -> list[Tensor]:
        """See :meth:`Answers.measured`; nats."""
        even = evened(chosen)
        if self._wanted is not None:
            p = torch.cat([self._wanted[i][k] for i, group in even.items() for k in group])
        else:
            with torch.no_grad():
                p, _ = self.rows.log_probs(even, [self._references[i] for i in even])
        q, rows = self.rows.log_probs(even, [self._memories[i] for i in even], adapters)
        return _by_training(_divergence(p, q), rows, chosen)


class Texts:
    """Rehearsal rows, on the base and on the trained model.

    Args:
        rehearsal: The model, and text to draw from.
        linears: See :class:`AnswerRows`.
    """

    def __init__(self, rehearsal: Rehearsal, linears: Collection[str]) -> None:
        self._overlay, lm = rehearsal.overlay, rehearsal.overlay.lm
        self._run, self._bare = rehearsal.run(start_at(lm, linears).block), rehearsal.run(len(lm.blocks))

    def numbers(self, drawn: Sequence[Mapping[int, Sequence[int]]]) -> int:
        """Returns the number of logits of a pass, of the training that has most; see :meth:`divergence`."""
        return self._overlay.lm.vocabulary * max(sum(map(len, each.values())) for each in drawn)

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


class StepLoss:
    """Losses of a step's trainings, of which gradients add up.

    What takes much memory is differentiated before more is added to it; what takes little is differentiated together.

    Args:
        trainings: Indices of the step's trainings.
        adapters: Adapter of each.
        device: Where losses are added up.

    Attributes:
        value: Losses of what was differentiated so far, ``[trainings]``.
    """

    def __init__(self, trainings: Sequence[int], adapters: Sequence[Term], device: torch.device) -> None:
        self._adapters = dict(zip(trainings, adapters, strict=True))
        self._places = {i: place for place, i in enumerate(trainings)}
        self.value = torch.zeros(len(trainings), device=device)
        self._open, self._numbers = self.value.clone(), 0

    def add_answers(self, answers: Answers, chosen: Chosen, weight: float = 1.0) -> dict[int, Tensor]:
        """Adds the means of what is measured of chosen rows.

        Args:
            answers: What is measured.
            chosen: Indices of rows by index of training, at least one each.
            weight: Weight of the means.

        Returns:
            What was measured of the rows, ``[rows]`` by index of training.
        """
        found: dict[int, list[Tensor]] = {i: [] for i in chosen}
        for part in answers.rows.parts(chosen):
            self._make_room(answers.rows.numbers(part))
            measured = dict(zip(part, answers.measured(part, [self._adapters[i] for i in part]), strict=True))
            shares = [len(each) / len(chosen[i]) * each.mean() for i, each in measured.items()]
            self._add(part, weight * torch.stack(shares))
            for i, each in measured.items():
                found[i].append(each.detach())
        return {i: torch.cat(each) for i, each in found.items()}

    def add_texts(
        self, texts: Texts, drawn: Sequence[Mapping[int, Sequence[int]]], memories: Sequence[Memory], weight: float
    ) -> None:
        """Adds the divergence of rehearsal text, see :meth:`Texts.divergence`.

        Args:
            texts: Rehearsal rows.
            drawn: Positions to read, one mapping per training.
            memories: One per training.
            weight: Weight of the divergence.
        """
        self._make_room(texts.numbers(drawn))
        self._add(self._places, weight * texts.divergence(drawn, memories, list(self._adapters.values())))

    def differentiate(self) -> None:
        """Adds the gradients of what was added since the last time to those of the adapters."""
        self._open.sum().backward()
        self.value += self._open.detach()
        self._open, self._numbers = torch.zeros_like(self.value), 0

    def _make_room(self, numbers: int) -> None:
        if self._numbers and self._numbers + numbers > _NUMBERS:
            self.differentiate()
        self._numbers += numbers

    def _add(self, trainings: Collection[int], losses: Tensor) -> None:
        places = torch.tensor([self._places[i] for i in trainings], device=self._open.device)
        self._open = self._open.index_add(0, places, losses.to(self._open.device))


def evened(chosen: Mapping[int, Sequence[T]]) -> dict[int, list[T]]:
    """Pads groups to the same size with their first item, since memories share out a batch evenly."""
    width = max(map(len, chosen.values()))
    return {i: [*group, *[group[0]] * (width - len(group))] for i, group in chosen.items()}


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """Returns KL(p || q) per token, ``[tokens]``, of log-probabilities ``[tokens, vocabulary]``."""
    return kl_div(q, p, log_target=True, reduction="none").sum(-1)


def _by_training(values: Tensor, rows: Tensor, chosen: Chosen) -> list[Tensor]:
    """Returns the mean of the values ``[tokens]`` of each chosen row; rows are those of :func:`evened`."""
    even = _mean_of_rows(values, rows).view(len(chosen), -1)
    return [row[: len(group)] for row, group in zip(even, chosen.values(), strict=True)]


def _mean_of_rows(values: Tensor, rows: Tensor) -> Tensor:
    """Returns the mean of the values ``[tokens]`` of each row, ``[rows]``."""
    counts = torch.bincount(rows)
    return values.new_zeros(len(counts)).index_add(0, rows, values) / counts
