"""Checks of what is to be written, refreshed or forgotten."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from sleepgym.editing.spec import EditError
from sleepgym.facts.fact import Fact
from sleepgym.memory.ledger import Key


class UnknownKeyError(EditError, KeyError):
    """A key is not in the ledger; nothing has changed."""

    # A KeyError shows its message as it would show a key, in quotation marks.
    __str__ = Exception.__str__


def keys_in(ledger: Collection[Key], keys: Iterable[Key]) -> tuple[Key, ...]:
    """The keys without repetitions.

    Raises:
        EditError: Something is no key.
        UnknownKeyError: A key is not in the ledger.
    """
    if not isinstance(keys, Iterable) or isinstance(keys, str):  # type: ignore[unreachable]
        raise EditError(
            f"expected a sequence of keys, found {keys!r}; a key is (subject, relation), such as fact.key, and stands "
            "in a list even if it is the only one"
        )
    chosen = tuple(dict.fromkeys(tuple(key) if isinstance(key, list) else key for key in keys))
    for key in chosen:
        if not (isinstance(key, tuple) and len(key) == 2 and all(isinstance(part, str) for part in key)):
            raise EditError(f"expected a key (subject, relation), found {key!r}; take fact.key")
        if key not in ledger:
            about = [known for known in ledger if known[0] == key[0]]
            raise UnknownKeyError(
                f"expected a key of the ledger, found {key!r}; about its subject there is {about or 'nothing'}"
            )
    return chosen


def agreed(facts: Iterable[Fact]) -> list[Fact]:
    """The facts without repetitions.

    Raises:
        EditError: There are none, something is no fact, or two of them contradict each other.
    """
    if isinstance(facts, Fact) or not isinstance(facts, Iterable) or isinstance(facts, (str, Mapping)):
        raise EditError(f"expected a sequence of facts, found {facts!r}; put even a single one into a list")
    given = list(facts)
    for fact in given:
        if not isinstance(fact, Fact):
            raise EditError(
                f"expected facts, found {type(fact).__name__} {fact!r}; make a Fact of it, or read records with "
                "sleepgym.facts.load_facts"
            )
    if not given:
        raise EditError(
            "expected at least one fact to inject, found none; skip the call when there is nothing to write"
        )
    by_key: dict[Key, Fact] = {}
    for fact in given:
        known = by_key.setdefault(fact.key, fact)
        if known.object != fact.object:
            raise EditError(
                f"expected one object for {fact.key}, found {known.object!r} and {fact.object!r} in one call; "
                "inject only the one that is true now"
            )
    return list(by_key.values())
