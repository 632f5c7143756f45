"""One record of a knowledge-editing data set, in each of the published forms, as a fact."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from sleepgym.facts.fact import Fact, FactError

RecordForm = Literal["counterfact", "zsre", "plain"]
Record = Mapping[str, Any]
Parsed = tuple[Fact, tuple[str, ...]]

KEYS: dict[RecordForm, str] = {
    "counterfact": "requested_rewrite; or subject, prompt, target_new, ground_truth",
    "zsre": "subject, src, alt, answers",
    "plain": "subject, prompt, object",
}
"""What a record of each form must have."""


def form_of(record: Record) -> RecordForm | None:
    """The form whose telltale keys a record has; None where it has none of them."""
    if "requested_rewrite" in record or "target_new" in record:
        return "counterfact"
    if "src" in record:
        return "zsre"
    return "plain" if "object" in record or "prompt" in record else None


def parse(record: Record, form: RecordForm) -> Parsed:
    """The fact of a record.

    ``{}`` in a text stands for the subject. Paraphrases and questions that do not contain the subject verbatim
    cannot be probed: they are handed back beside the fact.

    Raises:
        FactError: A key is missing or holds another type, a text is empty, the subject is not in the prompt,
            or the object is the true one already.
    """
    return _PARSERS[form](record)


def _counterfact(record: Record) -> Parsed:
    """Meng et al. 2022: as published, or flattened to one paraphrase and one neighbour."""
    if "requested_rewrite" not in record:
        neighbour = _optional(record, "locality_prompt")
        return _parsed(
            subject=_text(record, "subject"),
            prompt=_text(record, "prompt"),
            obj=_text(record, "target_new"),
            paraphrases=_texts(record, "rephrase_prompt"),
            neighbours=((neighbour, _text(record, "locality_ground_truth")),) if neighbour else (),
            true_object=_text(record, "ground_truth"),
        )
    rewrite = _nested(record, "requested_rewrite")
    true_object = _text(_nested(rewrite, "target_true"), "str")
    return _parsed(
        subject=_text(rewrite, "subject"),
        prompt=_text(rewrite, "prompt"),
        obj=_text(_nested(rewrite, "target_new"), "str"),
        relation=_optional(rewrite, "relation_id"),
        paraphrases=_texts(record, "paraphrase_prompts"),
        # Chosen by the authors to share the true object, so that it is the right answer to each.
        neighbours=tuple((prompt, true_object) for prompt in _texts(record, "neighborhood_prompts")),
        true_object=true_object,
    )


def _zsre(record: Record) -> Parsed:
    """Mitchell et al. 2022 (MEND): questions of zsRE, whose answer changes to ``alt``.

    The question itself is the prompt, as in MEMIT: its answer continues it. MEMIT teaches ``answers[0]``,
    which is true; here, as in MEND, it is ``alt``, which is not.
    """
    answers, question, unrelated = _texts(record, "answers"), _text(record, "src"), _optional(record, "loc")
    if not answers:
        raise FactError(f"expected a list of true answers in 'answers', found {_found(record, 'answers')}")
    # Natural Questions come without question marks; MEMIT adds them too.
    asked = unrelated if unrelated.endswith("?") else unrelated + "?"
    return _parsed(
        subject=_text(record, "subject"),
        prompt=question,
        obj=_text(record, "alt"),
        paraphrases=_texts(record, "rephrase"),
        questions=(question,),
        neighbours=((asked, _text(record, "loc_ans")),) if unrelated else (),
        true_object=answers[0],
    )


def _plain(record: Record) -> Parsed:
    """The fields of :class:`Fact` by name."""
    return _parsed(
        subject=_text(record, "subject"),
        prompt=_text(record, "prompt"),
        obj=_text(record, "object"),
        relation=_optional(record, "relation"),
        paraphrases=_texts(record, "paraphrases"),
        questions=(*_texts(record, "questions"), *_texts(record, "question")),
        neighbours=_pairs(record, "neighbours"),
        true_object=_optional(record, "true_object"),
    )


_PARSERS: dict[RecordForm, Callable[[Record], Parsed]] = {
    "counterfact": _counterfact,
    "zsre": _zsre,
    "plain": _plain,
}


def _parsed(
    *,
    subject: str,
    prompt: str,
    obj: str,
    relation: str = "",
    paraphrases: Sequence[str] = (),
    questions: Sequence[str] = (),
    neighbours: tuple[tuple[str, str], ...] = (),
    true_object: str = "",
) -> Parsed:
    if obj == true_object:
        raise FactError(
            f"expected an object other than the true one, found {obj!r} twice; change one or drop the record"
        )
    # Not str.format: other braces in a text mean themselves.
    prompt, *others = (text.replace("{}", subject) for text in (prompt, *paraphrases, *questions))
    told, asked = others[: len(paraphrases)], others[len(paraphrases) :]
    fact = Fact(
        subject=subject,
        prompt=prompt,
        object=obj,
        relation=relation,
        paraphrases=tuple(text for text in told if subject in text),
        questions=tuple(text for text in asked if subject in text),
        neighbours=neighbours,
        true_object=true_object,
    )
    return fact, tuple(text for text in others if subject not in text)


def _text(record: Record, key: str) -> str:
    """A text that must be there. Outer spaces go: they would be tokens of their own."""
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise FactError(f"expected a text in {key!r}, found {_found(record, key)}")
    return value.strip()


def _optional(record: Record, key: str) -> str:
    return _text(record, key) if record.get(key) not in (None, "") else ""


def _texts(record: Record, key: str) -> tuple[str, ...]:
    """A list of texts, or a single one; nothing where the key is missing."""
    value = record.get(key)
    if value is None or value == "":
        return ()
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise FactError(f"expected a list of texts in {key!r}, found {_found(record, key)}")
    return tuple(text.strip() for text in texts)


def _pairs(record: Record, key: str) -> tuple[tuple[str, str], ...]:
    items = record.get(key) or []
    if not isinstance(items, list):
        raise FactError(f"expected a list of [prompt, object] pairs in {key!r}, found {_found(record, key)}")
    pairs = []
    for item in items:
        match item:
            case [str(prompt), str(obj)] | {"prompt": str(prompt), "object": str(obj)} if (
                prompt.strip() and obj.strip()
            ):
                pairs.append((prompt.strip(), obj.strip()))
            case _:
                raise FactError(f"expected [prompt, object] pairs of texts in {key!r}, found {item!r}")
    return tuple(pairs)


def _nested(record: Record, key: str) -> Record:
    value = record.get(key)
    if not isinstance(value, Mapping):
        raise FactError(f"expected an object with keys in {key!r}, found {_found(record, key)}")
    return value


def _found(record: Record, key: str) -> str:
    return reprlib.repr(record[key]) if key in record else f"only the keys {', '.join(map(str, record)) or '(none)'}"
