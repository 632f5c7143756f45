"""Records real episodes with what the model answers after every action, the truth that a response model is fitted to.

What the mechanics know (ledger, inbox, clock) is not recorded: :mod:`sleepgym.sim.replay` plays a record again with
the recorded answers, so that features are computed from the very arrays that the fitted response will see.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from safetensors.numpy import save

from sleepgym import files
from sleepgym._version import __version__
from sleepgym.env.observation import Observation
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import Action, Choice
from sleepgym.episode.card import Card, parse_card
from sleepgym.episode.episode import Episode
from sleepgym.errors import SleepGymError
from sleepgym.memory.asking import chat_probe, margins, raw_probe
from sleepgym.memory.ledger import Key
from sleepgym.memory.owners import EDIT
from sleepgym.reading import found_in, parsed_json, read_arrays, require_array
from sleepgym.sim.state import Mind
from sleepgym.sim.streams import Streams, facts_in_order, max_facts, streams_of

Policy = Callable[[Observation, NDArray[np.bool_]], Any]
"""Chooses an action by an observation and the mask of :meth:`SleepEnv.action_masks`."""


ANSWERS = ("raw", "chat", "ratio", "known", "sure", "stage", "scale", "held", "rank")
"""What is measured before the first action and after each, as named in a :class:`Record`."""


_STREAM, _TAUGHT = "stream.", "taught."
"""How the names of arrays in a file begin that are not the record's own."""


class RecordError(SleepGymError, ValueError):
    """A record of an episode cannot be read."""


@dataclass(frozen=True)
class About:
    """Origin of a record.

    Attributes:
        card: Card of the environment.
        model: Name of the model.
        fingerprint: Hash of the model.
        policy: Name of the policy.
        seed: Seed of the episode.
        split: Split that facts were drawn from.
        sleepgym: Version of the package.
    """

    card: Card
    model: str
    fingerprint: str
    policy: str
    seed: int
    split: str
    sleepgym: str = __version__


@dataclass(frozen=True)
class Record:
    """A real episode: its stream, its actions, and what the model would have answered after each.

    Facts are numbered in order of first arrival.

    Attributes:
        about: Origin.
        streams: The stream, as one row.
        action: Operators, ``[steps]``.
        facts: Maximum number of facts that each writes, ``[steps]``.
        ticks: Ticks that each takes, ``[steps]``.
        invalid: Whether each was not allowed or failed, bool ``[steps]``.
        undone: Whether each was a night that undid itself, bool ``[steps]``.
        raw: Margin (nats) of each written fact on its prompt, before the first and after each, ``[steps + 1, facts]``.
        chat: The same in chat.
        ratio: Perplexity relative to the bare model, ``[steps + 1]``.
        known: Share of the pretrained facts that are answered correctly, ``[steps + 1]``.
        stage: Stage of each fact; 0 outside the ledger, ``[steps + 1, facts]``.
        scale: Scale of its edit; 0 outside the ledger, ``[steps + 1, facts]``.
        held: Nights in a row after which slow weights recalled it alone; 0 outside the ledger, ``[steps + 1, facts]``.
        rank: Rank of the adapter; 0 before the first night, ``[steps + 1]``.
        sure: Whether the model is sure of its own answer about each written fact; on cards with notes only, bool
            ``[steps + 1, facts]``, or ``[steps + 1, 0]``.
        taught: What the model answers once a SLEEP has taught it what notes tell, before the night, one row per step;
            rows of other steps are of no meaning. None on a card without notes.
        score: Score of the episode, ``[1]``.
    """

    about: About
    streams: Streams
    action: NDArray[np.int32]
    facts: NDArray[np.int32]
    ticks: NDArray[np.int32]
    invalid: NDArray[np.bool_]
    undone: NDArray[np.bool_]
    raw: NDArray[np.float32]
    chat: NDArray[np.float32]
    ratio: NDArray[np.float64]
    known: NDArray[np.float64]
    stage: NDArray[np.int32]
    scale: NDArray[np.float64]
    held: NDArray[np.int32]
    rank: NDArray[np.int32]
    sure: NDArray[np.bool_]
    score: NDArray[np.float64]
    taught: Mind | None = None

    def answers_after(self, step: int) -> dict[str, NDArray[Any]]:
        """Returns what :func:`answers_of` measured after a step."""
        return {name: getattr(self, name)[step + 1] for name in ANSWERS}

    def save(self, path: Path) -> None:
        """Writes one safetensors file, all or nothing; its metadata say what it is a record of.

        Raises:
            OSError: It cannot be written.
        """
        own = _prefixed("", {name: getattr(self, name) for name in _own()})
        stream = _prefixed(_STREAM, vars(self.streams))
        taught = _prefixed(_TAUGHT, vars(self.taught)) if self.taught is not None else {}
        about = {**vars(self.about), "card": self.about.card.model_dump(mode="json", exclude_none=True)}
        files.write(path, save({**own, **stream, **taught}, {"about": json.dumps(about)}))

    @classmethod
    def load(cls, path: Path) -> Record:
        """Reads what :meth:`save` wrote.

        Raises:
            RecordError: The file is missing or no record.
        """
        try:
            arrays, metadata = read_arrays(path)
            about = parsed_json(metadata["about"].encode(), path.name)
            about["card"] = parse_card(about["card"], path.name)
            origin = TypeAdapter(About).validate_python(about)
            steps = len(arrays["action"])
            # Files from before there were notes have nothing about them.
            none = {"note_right": np.zeros((1, 0), bool), "note_tokens": np.zeros((1, 0), np.int32)}
            arrays = {"sure": np.zeros((steps + 1, 0), bool), **_prefixed(_STREAM, none), **arrays}
            streams = Streams(**{f.name: arrays[f"{_STREAM}{f.name}"] for f in fields(Streams)})
            has_notes = origin.card.notes is not None
            taught = Mind(**{f.name: arrays[f"{_TAUGHT}{f.name}"] for f in fields(Mind)}) if has_notes else None
            found = cls(origin, streams, **{name: arrays[name] for name in _own()}, taught=taught)
            found._require_shapes()
            return found
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RecordError(
                f"expected a record of an episode in {path}, found {found_in(error)}; record it again"
            ) from error

    def _require_shapes(self) -> None:
        """Checks that arrays fit each other and the card.

        Raises:
            ValueError: They do not.
        """
        streams, steps, horizon = self.streams, self.action.size, self.about.card.horizon
        facts, arrivals = max_facts(self.about.card), streams.fact.size
        notable, noted = (0, 0) if self.about.card.notes is None else (facts, arrivals)
        of_stream: list[tuple[str, type[np.generic], tuple[int, ...]]] = [
            *((name, np.int32, (1,)) for name in ("night_start", "night_ticks", "edit_budget", "known")),
            *((name, np.float64, (1,)) for name in ("arrival_rate", "update_share")),
            ("traffic", np.float64, (1, horizon)),
            ("first", np.int32, (1, horizon + 1)),
            *((name, np.int32, (1, arrivals)) for name in ("fact", "version")),
            ("popularity", np.float64, (1, facts)),
            ("note_right", np.bool_, (1, noted)),
            ("note_tokens", np.int32, (1, noted)),
        ]
        own: list[tuple[str, type[np.generic], tuple[int, ...]]] = [
            *((name, np.int32, (steps,)) for name in ("action", "facts", "ticks")),
            *((name, np.bool_, (steps,)) for name in ("invalid", "undone")),
            *((name, np.float64, (steps + 1,)) for name in ("ratio", "known")),
            ("rank", np.int32, (steps + 1,)),
            *((name, np.float32, (steps + 1, facts)) for name in ("raw", "chat")),
            *((name, np.int32, (steps + 1, facts)) for name in ("stage", "held")),
            ("scale", np.float64, (steps + 1, facts)),
            ("sure", np.bool_, (steps + 1, notable)),
            ("score", np.float64, (1,)),
        ]
        of_taught: list[tuple[str, type[np.generic], tuple[int, ...]]] = [
            *((name, np.float32, (steps, facts)) for name in ("raw", "chat")),
            *((name, np.float64, (steps,)) for name in ("ratio", "known")),
            ("sure", np.bool_, (steps, notable)),
        ]
        for name, kind, shape in of_stream:
            require_array(getattr(streams, name), f"stream.{name}", kind, *shape)
        for name, kind, shape in own:
            require_array(getattr(self, name), name, kind, *shape)
        for name, kind, shape in of_taught if self.taught is not None else ():
            require_array(getattr(self.taught, name), f"{_TAUGHT}{name}", kind, *shape)


def record_episode(env: SleepEnv, policy: Policy, seed: int, name: str) -> Record:
    """Plays an episode and records it.

    Args:
        env: The real environment.
        policy: Chooses the actions.
        seed: Seed of the episode.
        name: Name of the policy, for the record.
    """
    observation, _ = env.reset(seed=seed)
    card, episode = env.card, env.episode
    keys = facts_in_order(episode.stream)
    taken: list[tuple[int, int, int, bool, bool]] = []
    seen = [answers_of(episode, card, keys)]
    taught = []
    score = 1.0
    while not env.over:
        choice = env.choices.of(action := policy(observation, env.action_masks()))
        taught.append(
            answers_of(forked_and_taught(env).episode, card, keys) if teaches_first(env, choice) else seen[-1]
        )
        version = episode.learner.state.memory.version
        observation, *_, info = env.step(action)
        invalid, undone = bool(info["invalid_action"]), bool(info["rolled_back"])
        taken.append((int(choice.action), choice.facts, choice.ticks, invalid, undone))
        # Equal versions of a memory give equal answers, and most actions leave it alone.
        same = episode.learner.state.memory.version == version
        seen.append(seen[-1] if same else answers_of(episode, card, keys))
        score = float(info["score"])
    action_, facts, ticks, invalid_, undone_ = (np.array(column) for column in zip(*taken, strict=True))
    columns, between = ({key: np.stack([answers[key] for answers in of]) for key in seen[0]} for of in (seen, taught))
    lm = env.base.lm
    return Record(
        about=About(card, lm.name, lm.fingerprint, name, seed, env.split),
        streams=streams_of(card, [episode.stream], [episode.readings] if card.notes is not None else ()),
        action=action_.astype(np.int32),
        facts=facts.astype(np.int32),
        ticks=ticks.astype(np.int32),
        invalid=invalid_.astype(bool),
        undone=undone_.astype(bool),
        score=np.array([score]),
        raw=columns["raw"].astype(np.float32),
        chat=columns["chat"].astype(np.float32),
        ratio=columns["ratio"],
        known=columns["known"],
        stage=columns["stage"].astype(np.int32),
        scale=columns["scale"],
        held=columns["held"].astype(np.int32),
        rank=columns["rank"].astype(np.int32),
        sure=columns["sure"],
        taught=_mind(between) if card.notes is not None else None,
    )


def teaches_first(env: SleepEnv, choice: Choice) -> bool:
    """Returns whether a choice is a night before which the weights are taught what notes tell."""
    task = env.episode.task(choice)
    return task is not None and choice.action == Action.SLEEP and bool(task.facts)


def forked_and_taught(env: SleepEnv) -> SleepEnv:
    """Returns a fork of an environment that has been taught what a SLEEP would teach it first, as a NAP does."""
    fork = env.fork()
    fork.step(fork.choices.usual(Action.NAP))
    return fork


def answers_of(episode: Episode, card: Card, keys: Sequence[Key]) -> dict[str, NDArray[Any]]:
    """Measures what the model answers now, and where its ledger has each fact."""
    state, lm = episode.learner.state, episode.learner.lm
    out: dict[str, NDArray[Any]] = {
        name: np.zeros(max_facts(card)) for name in ("raw", "chat", "stage", "scale", "held")
    }
    written = {keys.index(key): fact for key, fact in episode.inbox.written.items()}
    probes = [probe(lm, fact) for probe in (raw_probe, chat_probe) for fact in written.values()]
    if probes:
        (found,) = margins(episode.learner.base.overlay, [state.memory], [probes])
        out["raw"][list(written)], out["chat"][list(written)] = found.double().numpy().reshape(2, -1)
    for key, entry in state.ledger.items():
        fact = keys.index(key)
        out["stage"][fact], out["held"][fact] = entry.stage, entry.held
        out["scale"][fact] = state.scale_of(key)
    correct = episode.examiner.correct(episode.stream.known)
    out["known"] = np.array(correct.mean() if len(correct) else 1.0)
    edits = [owner for owner in state.memory.terms if owner.startswith(EDIT)]
    out["rank"] = np.array(float(state.memory.without(edits).largest_rank))
    out["ratio"] = np.array(episode.examiner.perplexity_ratio())
    out["sure"] = np.zeros(max_facts(card) if card.notes is not None else 0, bool)
    if card.notes is not None and written:
        # Of the current versions, as the episode asks: what it has asked is not asked again.
        current = [episode.inbox.current[keys[fact]].fact for fact in written]
        out["sure"][list(written)] = episode.examiner.sure(current, card.notes.sure_nats)
    return out


def _mind(answers: Mapping[str, NDArray[Any]]) -> Mind:
    """Returns measured answers, one row per step."""
    raw, chat = (answers[name].astype(np.float32) for name in ("raw", "chat"))
    return Mind(raw, chat, answers["ratio"], answers["known"], answers["sure"])


def _prefixed(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Returns arrays by the names that they have in a file."""
    return {f"{prefix}{name}": np.ascontiguousarray(array) for name, array in arrays.items()}


def _own() -> list[str]:
    return [field.name for field in fields(Record) if field.name not in ("about", "streams", "taught")]
