"""Prompts and objects as tokens: what belongs to the prompt, what to the object, and where the subject ends."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from sleepgym.facts.fact import FactError
from sleepgym.facts.writing import joiner_between

Turn = tuple[str, str]
"""An earlier question and its answer."""


@dataclass(frozen=True)
class Encoded:
    """A prompt and its object as tokens.

    Attributes:
        ids: Tokens of prompt and object.
        object_start: Index of the object's first token.
        subject_last: Index of the subject's last token, or -1 where no subject was given.
    """

    ids: tuple[int, ...]
    object_start: int
    subject_last: int = -1

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Tokens of the object alone."""
        return self.ids[self.object_start :]


class ChatPrompt(str):
    """A prompt in a model's chat format: all special tokens that belong there are in its text already."""

    __slots__ = ()


class Encoder:
    """Tokenizer of a model, and what the model can take.

    Args:
        tokenizer: A fast tokenizer.
        name: What errors call the model.
        positions: Most tokens that the model can take; None for no such limit.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str, positions: int | None) -> None:
        self.tokenizer, self.name, self.positions = tokenizer, name, positions
        # The same facts are probed again and again; tokenising them would cost as much as a forward pass.
        self._encode_once = lru_cache(maxsize=65536)(self._encode)

    def chat(
        self, question: str, system: str = "", history: Sequence[Turn] = (), template: Mapping[str, Any] | None = None
    ) -> str:
        """A question in the model's chat template, or as ``Question: ... Answer:`` if it has none.

        Args:
            question: Turn of the user.
            system: Turn of the system before all others; empty for none.
            history: Earlier questions with their answers.
            template: Further variables of the template, such as ``{"enable_thinking": False}``.

        Raises:
            FactError: The template refuses these turns.
        """
        if not self.tokenizer.chat_template:
            turns = [text for asked, answer in history for text in (f"Question: {asked}", f"Answer: {answer}")]
            return "\n".join([*([system] if system else []), *turns, f"Question: {question}", "Answer:"])
        messages = [{"role": "system", "content": system}] if system else []
        for asked, answer in history:
            messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        messages.append({"role": "user", "content": question})
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **(template or {})
            )
        except Exception as error:  # a template is a program: it can raise anything
            raise FactError(
                f"expected the chat template of {self.name!r} to take {[m['role'] for m in messages]}, found "
                f"{type(error).__name__}: {error}; leave out what it does not know"
            ) from error
        return ChatPrompt(text)

    @cached_property
    def starts(self) -> bool:
        """Whether texts are given a start token, so that no word of theirs stands first."""
        return self._tokens("A", in_chat=False)[0][:1] == [self.tokenizer.bos_token_id]

    def encode(self, prompt: str, obj: str, subject: str, prefix: str, joiner: str | None) -> Encoded:
        """See :meth:`LanguageModel.encode`."""
        return self._encode_once(prompt, obj, subject, prefix, joiner, isinstance(prompt, ChatPrompt))

    def _encode(self, prompt: str, obj: str, subject: str, prefix: str, joiner: str | None, in_chat: bool) -> Encoded:
        head = f"{prefix} {prompt}" if prefix else prompt
        text = head + self._between(head, obj, joiner) + obj
        ids, offsets = self._tokens(text, in_chat)
        start = next((i for i, (_, end) in enumerate(offsets) if end > len(head)), len(ids))
        if obj and start < len(ids) and offsets[start][0] < len(head):
            # A token across the border: what is asked would end before it, and would never be answered with it.
            ids, offsets, start = self._apart(text, head, in_chat) or (ids, offsets, start)
        if obj and (not obj.strip() or start == len(ids)):
            raise FactError(
                f"expected at least one token for the object {obj!r}, found none; "
                f"give an object that the tokenizer of {self.name!r} can write"
            )
        last = -1
        if subject:
            at = _last_occurrence(subject, prompt)
            if at < 0:
                raise FactError(
                    f"expected the subject {subject!r} in the prompt, found {prompt!r}; "
                    "write the subject exactly as it stands in the prompt"
                )
            at += len(head) - len(prompt)
            last = max(i for i, (s, e) in enumerate(offsets) if s < at + len(subject) and e > at)
        if self.positions is not None and len(ids) > self.positions:
            raise FactError(
                f"expected at most {self.positions} tokens, the most positions that {self.name!r} has, "
                f"found {len(ids)} in {text[:60]!r}...; shorten the prompt or its prefix"
            )
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown in ids[start:]:
            raise FactError(
                f"expected the object {obj!r} to be in the vocabulary of {self.name!r}, found an unknown token; "
                "choose an object the tokenizer can write"
            )
        return Encoded(tuple(ids), start, last)

    def _between(self, head: str, obj: str, joiner: str | None) -> str:
        """What stands between prompt and object."""
        # A special token (chat templates end in one) or a blank already separates them.
        if not obj or not head or head[-1].isspace() or head.endswith(self._special_tokens):
            return ""
        return joiner_between(head, obj) if joiner is None else joiner

    def _tokens(self, text: str, in_chat: bool) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and offsets, without special tokens that a tokenizer puts at the end: they are neither said nor asked."""
        bos = self.tokenizer.bos_token
        encoding = self.tokenizer(
            text,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            # As transformers encodes chats. A text that names its start token has it already.
            add_special_tokens=not (in_chat or (bos and text.startswith(bos))),
            return_attention_mask=False,
        )
        ids, offsets = list(encoding["input_ids"]), list(encoding["offset_mapping"])
        # Those that stand in the text have a place in it.
        while ids and encoding["special_tokens_mask"][len(ids) - 1] and offsets[-1][0] == offsets[-1][1]:
            ids.pop(), offsets.pop()
        return ids, offsets

    def _apart(self, text: str, head: str, in_chat: bool) -> tuple[list[int], list[tuple[int, int]], int] | None:
        """Tokens of prompt and rest, each on its own; None if they do not spell the text."""
        ids, offsets = self._tokens(head, in_chat)
        encoding = self.tokenizer(text[len(head) :], return_offsets_mapping=True, add_special_tokens=False)
        rest = encoding["input_ids"]
        whole, _ = self._tokens(text, in_chat)
        spelled = (self.tokenizer.decode(each, skip_special_tokens=True) for each in (ids + rest, whole))
        if len(set(spelled)) > 1:
            return None
        moved = [(start + len(head), end + len(head)) for start, end in encoding["offset_mapping"]]
        return ids + rest, offsets + moved, len(ids)

    @cached_property
    def _special_tokens(self) -> tuple[str, ...]:
        return tuple(str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special)


def _last_occurrence(part: str, text: str) -> int:
    """Where a part stands last, as words of their own if it does ("Ann" is not in "Annabel"); -1: nowhere."""
    words = [match.start() for match in re.finditer(rf"(?<!\w){re.escape(part)}(?!\w)", text)]
    return words[-1] if words else text.rfind(part)
