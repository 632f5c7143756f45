"""The cards of Llama models, whose weights are not here: played with a small random Llama in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.vector import SleepVectorEnv
from sleepgym.episode.actions import Action
from sleepgym.episode.card import load_card
from sleepgym.episode.snapshot import Snapshot
from sleepgym.facts.real import RealFacts
from sleepgym.lm import LanguageModel, ModelLoadError, find_blocks, load
from sleepgym.lm.architecture import features
from sleepgym.sleeper import SleepingLM, make_base

CARDS = ["SleepLLM-Llama3.2-1B-v0", "SleepLLM-Llama3.1-8B-v0"]
# A random model was not trained to read: targets have far to go, and nothing is to be spared.
SMALL: dict[str, Any] = {
    "edit": {
        "layers": [0, 1],
        "prefixes": 1,
        "steps": 60,
        "learning_rate": 0.5,
        "clamp": 20.0,
        "kl_weight": 0.0,
        "norm_weight": 0.0,
        "covariance_weight": 10.0,
        "ridge": 1e-4,
    },
    "sleep": {
        "first_layer": 1,
        "steps": 60,
        "learning_rate": 0.02,
        "rehearsal_rows": 0,
        "scales": [1.0, 0.0],
        "max_perplexity_ratio": 1e9,
        "validation_rows": 2,
    },
    "stream": {"arrival_rate": [0.5, 0.5], "known_facts": 2},
    "episode": {"days": 1, "perplexity_rows": 2, "max_perplexity_ratio": 1e9},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with a tokenizer like Llama 3's: pairs of bytes, a first token, none for padding or unknowns."""
    folder = tmp_path_factory.mktemp("llama")
    text = [text for fact in RealFacts.read().known_facts() for text in (fact.statement, *fact.questions)]
    begin, end = "<|begin_of_text|>", "<|end_of_text|>"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=[begin, end], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{begin} $A", special_tokens=[(begin, 0)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=begin, eos_token=end).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.15,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def make(card_id: str, folder: Path, **model: Any) -> SleepEnv:
    """The card with the random model in place of its own, unquantized if nothing else is said."""
    env = gym.make(
        card_id, **SMALL, model={"name": str(folder), "device": "cpu", "quantization": None, **model}
    ).unwrapped
    assert isinstance(env, SleepEnv)
    return env


def live(env: SleepEnv, seed: int = 0) -> set[Action]:
    """Plays an episode in which each action comes as soon as it is allowed; those that were done."""
    _, info = env.reset(seed=seed)
    done: set[Action] = set()
    while not env.over:
        mask = env.action_masks()
        # Prune, sleep and refresh before the rest, if they were not done yet; then write what arrives.
        new = [action for action in reversed(Action) if mask[action] and action not in done]
        action = new[0] if new else Action.INJECT if mask[Action.INJECT] else Action.WAIT
        observation, reward, _, _, info = env.step(action)
        assert not info["invalid_action"], env.unwrapped.error
        assert np.isfinite(reward) and env.observation_space.contains(observation)
        done.add(action)
    return done


@pytest.mark.parametrize("card_id", CARDS)
def test_an_episode_with_every_action(card_id: str, folder: Path) -> None:
    env = make(card_id, folder)
    before = [weight.clone() for weight in env.base.lm.model.parameters()]
    assert live(env) == set(Action)
    assert all(map(torch.equal, env.base.lm.model.parameters(), before)), "the base is never written"


def test_a_snapshot_goes_on_as_the_original(folder: Path, tmp_path: Path) -> None:
    env, other = make(CARDS[0], folder), make(CARDS[0], folder)
    env.reset(seed=1)
    while not env.action_masks()[Action.INJECT]:
        env.step(Action.WAIT)
    env.step(Action.INJECT)
    env.snapshot().save(tmp_path / "snapshot")
    other.restore(Snapshot.load(tmp_path / "snapshot", other.base.lm))
    for action in (Action.NAP, Action.SLEEP, Action.INJECT):
        assert data_equivalence(env.step(action)[:4], other.step(action)[:4], exact=True)


def test_a_vector_of_them_writes_and_sleeps_together(folder: Path) -> None:
    model = {"name": str(folder), "device": "cpu"}
    envs = SleepVectorEnv(2, card=CARDS[0], model=model, **SMALL)
    alone = [make(CARDS[0], folder) for _ in range(2)]
    envs.reset(seed=3)
    for i, env in enumerate(alone):
        env.reset(seed=3 + i)
    while not envs.action_masks()[:, Action.INJECT].all():
        for env in (envs, *alone):
            env.step(np.full(2, Action.WAIT) if env is envs else Action.WAIT)
    for action in (Action.INJECT, Action.NAP, Action.SLEEP):
        *_, infos = envs.step(np.full(2, action))
        for i, env in enumerate(alone):
            *_, info = env.step(action)
            assert (infos["recall"][i], infos["tick"][i]) == (info["recall"], info["tick"])
            assert infos["ppl_ratio"][i] == pytest.approx(info["ppl_ratio"], rel=1e-3)


@pytest.mark.parametrize("card_id", CARDS)
def test_a_model_that_is_not_here_is_named_with_what_to_do(card_id: str) -> None:
    with pytest.raises(ModelLoadError, match=r"(?s)found 'nobody/no-such-model'.* `hf download nobody/no-such-model`"):
        gym.make(card_id, model={"name": "nobody/no-such-model", "device": "cpu"})


def test_a_dtype_is_part_of_the_card(folder: Path) -> None:
    env = make(CARDS[0], folder, dtype="bfloat16")
    assert env.base.lm.dtype == torch.bfloat16
    assert env.base is not make(CARDS[0], folder).base


class Packed(nn.Linear):
    """A linear whose weight is bytes in a column, as that of bitsandbytes is."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False)
        self.step = float(linear.weight.abs().max()) / 127
        numbers = (linear.weight / self.step).round().to(torch.int8).reshape(-1, 1)
        self.weight = nn.Parameter(numbers, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ (self.weight.view(self.out_features, self.in_features).to(x.dtype) * self.step).T


def test_packed_weights_are_edited_and_slept_on_without_being_written(folder: Path) -> None:
    whole = load(folder, device="cpu")
    for block in whole.blocks:
        for name in block.linears:
            whole.model.set_submodule(name, Packed(whole.linear(name)))  # type: ignore[arg-type]
    lm = LanguageModel("packed", whole.model, whole.tokenizer, find_blocks(whole.model))
    assert lm.blocks == whole.blocks and features(lm.linear(lm.blocks[0].down_proj)) == (128, 64)
    before = [weight.clone() for weight in lm.model.parameters()]
    card = load_card(CARDS[1], **SMALL)
    learner = SleepingLM(make_base(lm, card.edit), card.sleep)
    facts = RealFacts.read().new_facts(np.random.default_rng(0), 3)
    assert learner.inject(facts).edits == learner.refresh(list(learner.state.ledger)).edits == 3
    assert learner.sleep().advanced, "gradients have passed through what is packed"
    assert all(map(torch.equal, lm.model.parameters(), before))


def test_quantized_weights_are_edited_and_slept_on_without_being_written(folder: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="needs the extra quant")
    env = make(CARDS[1], folder, quantization="4bit")
    lm = env.base.lm
    module = lm.linear(lm.blocks[0].down_proj)
    assert features(module) == (128, 64) != tuple(module.weight.shape)
    before = [weight.clone() for weight in lm.model.parameters()]
    assert {Action.INJECT, Action.NAP, Action.REFRESH, Action.SLEEP} <= live(env)
    assert all(map(torch.equal, lm.model.parameters(), before))


def test_gradients_pass_through_quantized_weights(folder: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="needs the extra quant")
    lm = load(folder, device="cpu", quantization="4bit")
    module = lm.linear(lm.blocks[0].down_proj)
    weight = module(torch.eye(128)).T  # run without gradients first, as every model is
    x = torch.randn(3, 128, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (gradient,) = torch.autograd.grad(module(x).square().sum(), x)
    torch.testing.assert_close(gradient, 2 * (x @ weight.T) @ weight, rtol=1e-3, atol=1e-4)
