"""How sure the bundled model is of its answers."""

from __future__ import annotations

import math

from sleepgym.memory.doubt import SURE_NATS, sureness


def test_a_model_is_sure_of_what_it_knows_and_not_of_what_nobody_told_it(learner, world, facts):
    asked = [(fact.questions[0], learner.ask(fact.questions[0])) for fact in (*world.known_facts()[:20], *facts)]
    found = [sureness(learner.lm, question, answer, learner.score) for question, answer in asked]
    assert all(margin > 0 for margin in found), "greedy answers"
    assert sum(margin >= SURE_NATS for margin in found[:20]) >= 15
    assert sum(margin >= SURE_NATS for margin in found[20:]) <= 3


def test_no_answer_and_one_that_does_not_fit_are_unsure(learner):
    assert sureness(learner.lm, "Who?", " ", learner.score) == -math.inf
    assert sureness(learner.lm, "Who?", "word " * 300, learner.score) == -math.inf
