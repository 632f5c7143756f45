"""One record of a knowledge-editing data set, in each of the published forms, as facts."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple

from sleepgym.facts.fact import Fact
from sleepgym.facts.texts import FactError, subject_missing, text_of
from sleepgym.facts.writing import strip_outer

RecordForm = Literal["counterfact", "zsre", "plain"]
Record = Mapping[str, Any]
Pair = tuple[str, str]

KEYS: dict[RecordForm, str] = {
    "counterfact": "requested_rewrite; or subject, prompt, target_new and perhaps target_true or ground_truth",
    "zsre": "subject, src, alt, answers",
    "plain": "subject, prompt, object",
}
"""What a record of each form must have."""

_USED: dict[RecordForm, str] = {
    "counterfact": "requested_rewrite subject prompt target_new target_true ground_truth relation_id question "
    "paraphrase_prompts rephrase_prompt rephrase neighborhood_prompts locality_prompt locality_ground_truth locality",
    "zsre": "subject src alt answers rephrase loc loc_ans",
    "plain": "subject prompt object relation paraphrases questions question neighbours true_object joiner",
}
_UNKNOWN = "<|endoftext|>"  # what EasyEdit writes where the true answer is not known


class Parsed(NamedTuple):
    """What a record holds: its facts, and what was said about them that could not be used, with the reason."""

    facts: tuple[Fact, ...]
    notes: tuple[str, ...] = ()


def form_of(record: Record) -> RecordForm | None:
    """The form whose telltale keys a record has; None where it has none of them."""
    if "requested_rewrite" in record or "target_new" in record:
        return "counterfact"
    if "src" in record:
        return "zsre"
    return "plain" if "object" in record or "prompt" in record else None


def fits(record: Record) -> RecordForm | None:
    """The form whose telltale and needed keys a record has: what it is among records of another form."""
    needed = {"counterfact": (), "zsre": ("subject", "alt"), "plain": ("subject", "prompt", "object")}
    form = form_of(record)
    return form if form is not None and all(key in record for key in needed[form]) else None


def unused_keys(record: Record, form: RecordForm) -> list[str]:
    """Keys of a record that its form does not read."""
    return [str(key) for key in record if key not in _USED[form].split()]


def parse(record: Record, form: RecordForm) -> Parsed:
    """The facts of a record: one, or as many as it asks to rewrite.

    ``{}`` in a text stands for the subject. Paraphrases and questions that do not contain the subject verbatim
    cannot be probed: they are noted beside the facts.

    Raises:
        FactError: A key is missing or holds another type, a text is empty, the subject is not in the prompt,
            or the object is the true one already.
    """
    return _PARSERS[form](record)


def _counterfact(record: Record) -> Parsed:
    """Meng et al. 2022 and what grew out of it: requests of ROME and MEMIT, flat records, KnowEdit, MQuAKE."""
    if "requested_rewrite" not in record:
        return _edit(record, record)
    rewrites = record["requested_rewrite"]
    if not isinstance(rewrites, list):
        return _edit(_nested(record, "requested_rewrite"), record)
    if not rewrites or not all(isinstance(rewrite, Mapping) for rewrite in rewrites):
        raise FactError(
            f"expected objects with keys in 'requested_rewrite', found {_found(record, 'requested_rewrite')}"
        )
    parsed = [_edit(rewrite, record if len(rewrites) == 1 else {}) for rewrite in rewrites]
    return Parsed(tuple(fact for each in parsed for fact in each.facts), sum((each.notes for each in parsed), ()))


def _edit(rewrite: Record, record: Record) -> Parsed:
    """One rewrite, and the record around it with what it is tested on."""
    target, *others = _answers(rewrite, "target_new") or [_text(rewrite, "target_new")]
    truths = _answers(rewrite, "target_true") or _answers(rewrite, "ground_truth")
    near = _texts(record, "neighborhood_prompts")
    notes = [f"expected one text in 'target_new', found {other!r} too, which is not taught" for other in others]
    if near and not truths:
        notes.append("expected a true object for the neighborhood_prompts, found none; they have no answer to test")
    return _parsed(
        subject=_text(rewrite, "subject"),
        prompt=_text(rewrite, "prompt"),
        obj=target,
        relation=_optional(rewrite, "relation_id"),
        paraphrases=[
            text for key in ("paraphrase_prompts", "rephrase_prompt", "rephrase") for text in _texts(record, key)
        ],
        questions=_texts(rewrite, "question"),
        # Chosen by the authors to share the true object, so that it is the right answer to each.
        neighbours=[*((text, truths[0]) for text in near if truths), *_near(record), *_locality(record, notes)],
        truths=truths,
        notes=notes,
    )


def _near(record: Record) -> list[Pair]:
    """What flat records say of other subjects: a prompt and its answer, or as many answers as prompts."""
    prompts = _texts(record, "locality_prompt")
    if not prompts:
        return []
    answers = _texts(record, "locality_ground_truth") or (_text(record, "locality_ground_truth"),)
    if len(prompts) != len(answers):
        raise FactError(
            f"expected as many texts in 'locality_ground_truth' as in 'locality_prompt', "
            f"found {len(answers)} and {len(prompts)}"
        )
    return list(zip(prompts, answers, strict=True))


def _locality(record: Record, notes: list[str]) -> Iterator[Pair]:
    """KnowEdit's ``locality``: lists of prompts with answers by kind. What has no answer is noted."""
    kinds = record.get("locality") or {}
    for kind, items in kinds.items() if isinstance(kinds, Mapping) else [("locality", kinds)]:
        for item in items if isinstance(items, list) else [items]:
            prompts = _answers(item, "prompt") if isinstance(item, Mapping) else []
            answers = _answers(item, "ground_truth") if isinstance(item, Mapping) else []
            if len(prompts) > 1 and len(prompts) == len(answers):
                yield from zip(prompts, answers, strict=True)
            elif len(prompts) == 1 and answers:
                yield prompts[0], answers[0]
            else:
                notes.append(f"expected a prompt with its ground_truth in {kind!r}, found {reprlib.repr(item)}")


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
        truths=answers,
    )


def _plain(record: Record) -> Parsed:
    """The fields of :class:`Fact` by name."""
    true_object = _optional(record, "true_object")
    return _parsed(
        subject=_text(record, "subject"),
        prompt=_text(record, "prompt"),
        obj=_text(record, "object"),
        relation=_optional(record, "relation"),
        paraphrases=_texts(record, "paraphrases"),
        questions=(*_texts(record, "questions"), *_texts(record, "question")),
        neighbours=_pairs(record, "neighbours"),
        truths=(true_object,) if true_object else (),
        joiner=record.get("joiner"),
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
    neighbours: Sequence[Pair] = (),
    truths: Sequence[str] = (),
    joiner: str | None = None,
    notes: Sequence[str] = (),
) -> Parsed:
    if obj in truths:
        raise FactError(
            f"expected an object other than the true one, found {obj!r} twice; change one or drop the record"
        )
    # Not str.format: other braces in a text mean themselves.
    told, asked = ([text.replace("{}", subject) for text in texts] for texts in (paraphrases, questions))
    fact = Fact(
        subject=subject,
        prompt=prompt.replace("{}", subject),
        object=obj,
        relation=relation,
        paraphrases=tuple(text for text in told if subject in text),
        questions=tuple(text for text in asked if subject in text),
        neighbours=tuple(neighbours),
        true_object=truths[0] if truths else "",
        joiner=joiner,
    )
    unusable = (subject_missing(subject, text, "text") for text in (*told, *asked) if subject not in text)
    return Parsed((fact,), (*notes, *unusable))


def _text(record: Record, key: str) -> str:
    """A text that must be there. Outer spaces go: they would be tokens of their own."""
    value = record.get(key)
    if not isinstance(value, str) or not strip_outer(value):
        raise FactError(f"expected a text in {key!r}, found {_found(record, key)}")
    return text_of(value, repr(key))


def _optional(record: Record, key: str) -> str:
    return _text(record, key) if record.get(key) not in (None, "") else ""


def _texts(record: Record, key: str) -> tuple[str, ...]:
    """A list of texts, or a single one; nothing where the key is missing. Empty ones are none."""
    value = record.get(key)
    if value is None or value == "":
        return ()
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise FactError(f"expected a list of texts in {key!r}, found {_found(record, key)}")
    return tuple(text for text in (text_of(text, repr(key)) for text in texts) if text)


def _answers(record: Record, key: str) -> list[str]:
    """Answers in any of the forms in which they are published; the first is the usual one.

    A text, ``{"str": text}``, or a list of those, in which the lists of aliases may be nested.
    """
    found: list[str] = []
    waiting = [record.get(key)]
    while waiting:
        value = waiting.pop(0)
        if isinstance(value, Mapping):
            found.append(_text(value, "str"))
        elif isinstance(value, list | tuple):
            waiting[:0] = value
        elif isinstance(value, str):
            found.append(text_of(value, repr(key)))
        elif value is not None:
            raise FactError(f"expected a text in {key!r}, found {_found(record, key)}")
    return [text for text in dict.fromkeys(found) if text not in ("", _UNKNOWN)]


def _pairs(record: Record, key: str) -> tuple[Pair, ...]:
    items = record.get(key) or []
    if not isinstance(items, list):
        raise FactError(f"expected a list of [prompt, object] pairs in {key!r}, found {_found(record, key)}")
    pairs = []
    for item in items:
        match item:
            case [str(prompt), str(obj)] | {"prompt": str(prompt), "object": str(obj)} if strip_outer(
                prompt
            ) and strip_outer(obj):
                pairs.append((prompt, obj))
            case _:
                raise FactError(f"expected [prompt, object] pairs of texts in {key!r}, found {reprlib.repr(item)}")
    return tuple(pairs)


def _nested(record: Record, key: str) -> Record:
    value = record.get(key)
    if not isinstance(value, Mapping):
        raise FactError(f"expected an object with keys in {key!r}, found {_found(record, key)}")
    return value


def _found(record: Record, key: str) -> str:
    return reprlib.repr(record[key]) if key in record else f"only the keys {listed(record) or '(none)'}"


def listed(keys: Iterable[object]) -> str:
    """The first of some keys, as a message names them."""
    named = [" ".join(str(key).split())[:60] for key in islice(keys, 13)]
    return ", ".join([*named[:12], "..."] if len(named) > 12 else named)
