"""Teaches five facts to a small random model of one family after another, and takes them back.

    python benchmarks/architectures.py --out docs/architectures.md

What depends on an architecture is whether an edit finds its place, is felt at the output, and leaves without a
trace; none of that needs a trained model. How many facts a model holds does, and is not measured here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import tyro
from rich.console import Console
from rich.markdown import Markdown
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging

from sleepgym.editing import Editor, EditSpec, ModelStatistics
from sleepgym.editing.covariance import second_moments
from sleepgym.facts import Fact, World
from sleepgym.lm import ArchitectureError, LanguageModel, find_blocks, score
from sleepgym.lm.architecture import require_causal
from sleepgym.lm.language_model import hooked
from sleepgym.overlay import Memory, Overlay

Recipe = tuple[str, dict[str, Any]]
"""A model type of transformers, and what its configuration needs besides :data:`SIZE`."""

SIZE = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3}
ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 2}
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "max_position_embeddings": 128}
# The customary 0.02 suits wide models; in narrow ones no linear, and so no subject, would be heard.
LOUD = {"initializer_range": 0.15}
EMBEDDING, MLP = 0.15, 0.7
"""Root mean square of what enters the first block, and of what leaves every MLP."""
HEADS = {"head_dim": 32}
LOCAL = {"sliding_window": 8}
PER_LAYER = {**HEADS, **LOCAL, "global_head_dim": 32, "vocab_size_per_layer_input": 128}
LATENT = {
    "q_lora_rank": 64, "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32,
    "num_key_value_heads": 4,
}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}

FACTS = 5

DENSE: dict[str, Recipe] = {
    "GPT": ("openai-gpt", {}),
    "GPT-2": ("gpt2", {"n_inner": 256}),
    "GPT-2, untied head": ("gpt2", {"n_inner": 256, "tie_word_embeddings": False}),
    "GPT-Neo": ("gpt_neo", {"attention_types": [[["global", "local", "global"], 1]], "window_size": 16}),
    "GPT-J": ("gptj", {"rotary_dim": 16}),
    "GPT-NeoX": ("gpt_neox", {}),
    "GPT-NeoX, sequential": ("gpt_neox", {"use_parallel_residual": False}),
    "GPT-NeoX Japanese": ("gpt_neox_japanese", {"intermediate_multiple_size": 2}),
    "GPTBigCode": ("gpt_bigcode", {"n_inner": 256}),
    "CodeGen": ("codegen", {"rotary_dim": 16}),
    "CTRL": ("ctrl", {"dff": 256}),
    "XGLM": ("xglm", {"ffn_dim": 256}),
    "BLOOM": ("bloom", {}),
    "MPT": ("mpt", {"expansion_ratio": 2}),
    "Falcon": ("falcon", {"ffn_hidden_size": 256}),
    "Falcon, sequential, ALiBi": ("falcon", {"ffn_hidden_size": 256, "alibi": True, "parallel_attn": False}),
    "Falcon, new decoder": ("falcon", {"ffn_hidden_size": 256, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "BioGPT": ("biogpt", {}),
    "OPT": ("opt", {"ffn_dim": 256, "word_embed_proj_dim": 128}),
    "OPT, narrow embeddings": ("opt", {"ffn_dim": 256, "word_embed_proj_dim": 64}),
    "OPT, norm after": ("opt", {"ffn_dim": 256, "word_embed_proj_dim": 128, "do_layer_norm_before": False}),
    "BERT as decoder": ("bert", {"is_decoder": True}),
    "BART's decoder": ("bart", {"decoder_layers": 3, "decoder_ffn_dim": 256, "decoder_attention_heads": 4}),
    "Llama": ("llama", {}),
    "Llama, MLP as wide as the model": ("llama", {"intermediate_size": 128}),
    "Llama, MLP narrower than the model": ("llama", {"intermediate_size": 96}),
    "Mistral": ("mistral", LOCAL),
    "Ministral": ("ministral", {**HEADS, **LOCAL}),
    "Qwen2": ("qwen2", {}),
    "Qwen3": ("qwen3", HEADS),
    "Gemma": ("gemma", HEADS),
    "Gemma 2": ("gemma2", {**HEADS, **LOCAL}),
    "Gemma 3": ("gemma3_text", {**HEADS, **LOCAL}),
    "Gemma 4": ("gemma4_text", {**PER_LAYER, "hidden_size_per_layer_input": 16}),
    "VaultGemma": ("vaultgemma", {**HEADS, **LOCAL}),
    "Phi": ("phi", {}),
    "Phi-3": ("phi3", {}),
    "OLMo": ("olmo", {}),
    "OLMo 2": ("olmo2", {}),
    "OLMo 3": ("olmo3", LOCAL),
    "StableLM": ("stablelm", {}),
    "StableLM, parallel": ("stablelm", {"use_parallel_residual": True}),
    "SmolLM3": ("smollm3", {}),
    "Granite": ("granite", {"attention_multiplier": 0.18}),
    "Cohere": ("cohere", {}),
    "Cohere 2": ("cohere2", LOCAL),
    "Starcoder2": ("starcoder2", {}),
    "Nemotron": ("nemotron", {}),
    "GLM": ("glm", HEADS),
    "GLM-4": ("glm4", HEADS),
    "ERNIE 4.5": ("ernie4_5", HEADS),
    "Helium": ("helium", HEADS),
    "EXAONE 4": ("exaone4", LOCAL),
    "Persimmon": ("persimmon", {}),
    "Apertus": ("apertus", {}),
    "Arcee": ("arcee", {}),
    "BitNet": ("bitnet", {}),
    "DiffLlama": ("diffllama", {}),
    "Doge": ("doge", {}),
    "Hunyuan": ("hunyuan_v1_dense", HEADS),
    "Jais 2": ("jais2", {}),
    "ModernBERT decoder": ("modernbert-decoder", LOCAL),
    "nanochat": ("nanochat", {}),
    "Seed-OSS": ("seed_oss", HEADS),
    "LFM2, attention only": ("lfm2", {"layer_types": ["full_attention"] * 3, "block_auto_adjust_ff_dim": False}),
    "MiniCPM3 (latent attention)": ("minicpm3", LATENT),
    "Youtu (latent attention)": ("youtu", LATENT),
    "DeepSeek-V3, dense blocks only": ("deepseek_v3", {**LATENT, "first_k_dense_replace": 3}),
}

REFUSED: dict[str, dict[str, Recipe]] = {
    "a mixture of experts": {
        "Mixtral": ("mixtral", EXPERTS),
        "Qwen2-MoE": ("qwen2_moe", {**EXPERTS, "shared_expert_intermediate_size": 32}),
        "Qwen3-MoE": ("qwen3_moe", EXPERTS),
        "OLMoE": ("olmoe", EXPERTS),
        "GPT-OSS": ("gpt_oss", EXPERTS),
        "Granite MoE": ("granitemoe", EXPERTS),
        "JetMoE": ("jetmoe", EXPERTS),
        "PhiMoE": ("phimoe", EXPERTS),
        "DeepSeek-V3": ("deepseek_v3", {**LATENT, "first_k_dense_replace": 1, "n_routed_experts": 8, "n_group": 2}),
    },
    "expected attention in every block": {
        "Mamba": ("mamba", {}),
        "Mamba 2": ("mamba2", {"num_heads": 4, "head_dim": 64}),
        "Falcon Mamba": ("falcon_mamba", {}),
        "xLSTM": ("xlstm", {}),
        "Jamba": ("jamba", {"num_experts": 2}),
        "Bamba": ("bamba", {}),
        "RecurrentGemma": ("recurrent_gemma", {}),
        "LFM2": ("lfm2", {"layer_types": ["conv", "full_attention", "conv"]}),
        "Qwen3.5": ("qwen3_5_text", {}),
        "XLM": ("xlm", {"emb_dim": 128}),
    },
    "and nothing else": {
        "Falcon-H1": ("falcon_h1", {"mamba_d_ssm": 128, "mamba_n_heads": 4, "mamba_d_head": 32}),
        "RWKV": ("rwkv", {"intermediate_size": 512}),
    },
    "projections back to width": {
        "Gemma 4, wide per-layer inputs": ("gemma4_text", {**PER_LAYER, "hidden_size_per_layer_input": 128}),
    },
    "expected a causal model": {
        "BERT": ("bert", {}),
        "RoFormer": ("roformer", {}),
        "CPM-Ant": ("cpmant", {"dim_ff": 256, "dim_head": 32, "prompt_types": 4, "prompt_length": 4}),
    },
}
"""By what the error says."""

# Nothing in a random model was trained to read facts: a target has far to go (clamp, steps, rate), there is no
# knowledge to be spared (KL), and each fact is asked just as it was taught (no prefixes). No advice for real models.
SPEC = EditSpec(
    layers=(0,), prefixes=0, steps=100, learning_rate=0.5, clamp=20.0, stop_nll=0.02, kl_weight=0.0, norm_weight=0.0,
    covariance_weight=10.0, ridge=1e-4,
)  # fmt: skip


@dataclass
class Args:
    out: Path | None = None
    """Markdown file that receives the tables; by default they are printed"""


@dataclass(frozen=True)
class Row:
    """What was found out about one family."""

    config: str
    down_proj: str
    linear: str
    tied: bool
    parallel: bool
    norm: str
    recalled: int
    reverted: bool
    untouched: bool


@cache
def lesson() -> tuple[list[Fact], list[Fact], PreTrainedTokenizerBase]:
    """Five facts, others that are only text, and a tokenizer of their words.

    The fewer words there are, the fewer rivals an object has; a narrow random model cannot tell thousands apart.
    """
    taught = World().new_facts(np.random.default_rng(5), FACTS)
    others = World().new_facts(np.random.default_rng(6), 10)
    splitter = Whitespace()
    words = [word for fact in taught + others for word, _ in splitter.pre_tokenize_str(f"{fact.statement} is a")]
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*special, *words]))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), special, strict=True))
    return taught, others, PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def build(recipe: Recipe, vocabulary: int) -> PreTrainedModel:
    """A small random model, frozen and in eval mode."""
    model_type, settings = recipe
    torch.manual_seed(0)
    everything = {"vocab_size": vocabulary, **SIZE, **ATTENTION, **TOKENS, **LOUD, **settings}
    model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **everything))
    return model.eval().requires_grad_(False)


@torch.no_grad()
def let_attention_be_heard(lm: LanguageModel, ids: Tensor) -> None:
    """Turns down what a token says about itself: a random model has not learned to listen to others.

    In every family, whatever multipliers it has, tokens enter the first block and leave an MLP equally loud.
    """
    # Not every family draws its linears as the configuration says.
    for name in (name for block in lm.blocks for name in block.linears):
        lm.linear(name).get_parameter("weight").normal_(0, LOUD["initializer_range"])

    def leave(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output * scale(module, output, MLP)

    def enter(module: nn.Module, args: tuple[Tensor, ...], arguments: dict[str, Any]) -> None:
        scale(lm.model.get_input_embeddings(), args[0] if args else arguments["hidden_states"], EMBEDDING)

    def scale(module: nn.Module, output: Tensor, wanted: float) -> float:
        factor = wanted / float(output.square().mean().sqrt())
        module.get_parameter("weight").mul_(factor)
        return factor

    with hooked(lm.linear(block_name(lm, 0)).register_forward_pre_hook(enter, with_kwargs=True)):
        lm.model(input_ids=ids, use_cache=False)
    with hooked(*(lm.linear(block.down_proj).register_forward_hook(leave) for block in lm.blocks)):
        lm.model(input_ids=ids, use_cache=False)


def wrap(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> LanguageModel:
    """The model with its structure.

    Raises:
        ArchitectureError: It cannot be edited.
    """
    blocks = find_blocks(model)
    require_causal(model)
    return LanguageModel("random", model, tokenizer, blocks)


def outputs(lm: LanguageModel, ids: Tensor, changed: Sequence[str] = (), factor: float = 1.0) -> tuple[Tensor, Tensor]:
    """What the down-projection of the second block reads and what the block puts out, with outputs of modules scaled.

    Args:
        lm: The bare model.
        ids: Token rows.
        changed: Modules whose outputs are scaled.
        factor: What they are scaled by.
    """
    seen: dict[str, Tensor] = {}

    def scale(module: nn.Module, args: Any, output: Any) -> Any:
        return output * factor if isinstance(output, Tensor) else type(output)([output[0] * factor, *output[1:]])

    def read(module: nn.Module, args: Any) -> None:
        seen["key"] = args[0]

    def put_out(module: nn.Module, args: Any, output: Any) -> None:
        seen["block"] = output if isinstance(output, Tensor) else output[0]

    handles = [lm.linear(name).register_forward_hook(scale) for name in changed]
    handles.append(lm.linear(lm.blocks[1].down_proj).register_forward_pre_hook(read))
    handles.append(lm.linear(block_name(lm)).register_forward_hook(put_out))
    with torch.no_grad(), hooked(*handles):
        lm.model(input_ids=ids, use_cache=False)
    return seen["key"], seen["block"]


def block_name(lm: LanguageModel, index: int = 1) -> str:
    """Module name of a block."""
    parts = lm.blocks[index].down_proj.split(".")
    return ".".join(parts[: parts.index(str(index)) + 1])


def is_parallel(lm: LanguageModel, ids: Tensor) -> bool:
    """Whether a block's MLP does not see what the same block's attention puts out."""
    block = block_name(lm)
    modules = lm.linear(block).named_modules()
    attention = [f"{block}.{n}" for n, m in modules if n and "attention" in type(m).__name__.lower()]
    return torch.equal(outputs(lm, ids)[0], outputs(lm, ids, attention, 100.0)[0])


def norm_after(lm: LanguageModel, ids: Tensor) -> str:
    """Which norm an MLP's output goes through, by what becomes of an output that is much too large."""
    down = [lm.blocks[1].down_proj]
    plain, large, opposite = (outputs(lm, ids, down, factor)[1] for factor in (1.0, 1e8, -1e8))
    if large.norm() > 1e3 * plain.norm():
        return "none"
    # What is left of the sum of opposites is the residual stream, unless it went through the norm too.
    return "MLP output" if (large + opposite).norm() > 1e-3 * large.norm() else "sum"


def examine(recipe: Recipe) -> Row:
    """Teaches facts to a model, takes them back, and looks at where they were.

    Raises:
        ArchitectureError: The model cannot be edited.
    """
    facts, others, tokenizer = lesson()
    model = build(recipe, len(tokenizer))
    lm = wrap(model, tokenizer)
    text = [lm.encode(f.statement).ids for f in facts + others]
    ids = lm.pad(text[:2])
    let_attention_be_heard(lm, ids)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with torch.no_grad():
        bare = model(input_ids=ids, use_cache=False).logits
    overlay, memory = Overlay(lm), Memory()
    statistics = ModelStatistics(second_moments(lm, text, SPEC.layers), (), (), ())
    Editor(overlay, statistics, SPEC).write(memory, facts)
    with overlay.use(memory):
        recalled = int(score(lm, [lm.encode(f.prompt, f.object) for f in facts]).correct.sum())
    for owner in list(memory.terms):
        memory.remove(owner)
    with torch.no_grad(), overlay.use(memory):
        reverted = torch.equal(model(input_ids=ids, use_cache=False).logits, bare)
    untouched = all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    down, head = lm.linear(lm.blocks[1].down_proj), model.get_output_embeddings()
    return Row(
        config=type(model.config).__name__,
        down_proj=lm.blocks[1].down_proj.removeprefix(block_name(lm) + "."),
        linear="Conv1D" if isinstance(down, Conv1D) else "Linear",
        tied=head.weight is model.get_input_embeddings().weight,
        parallel=is_parallel(lm, ids),
        norm=norm_after(lm, ids),
        recalled=recalled,
        reverted=reverted,
        untouched=untouched,
    )


def refusal(recipe: Recipe) -> tuple[str, str]:
    """The configuration's name and the reason for which a model is refused."""
    tokenizer = lesson()[2]
    model = build(recipe, len(tokenizer))
    try:
        wrap(model, tokenizer)
    except ArchitectureError as error:
        return type(model.config).__name__, str(error)
    raise AssertionError(
        f"expected {type(model).__name__} to be refused, found that it can be edited; move it to DENSE"
    )


def report() -> str:
    """Both tables in Markdown."""
    lines = [
        "# Architectures",
        "",
        f"Written by `python benchmarks/architectures.py` with transformers {transformers.__version__}: small random",
        f"models, {FACTS} facts each.",
        "What was measured is that an edit finds its place, is felt at the output, and leaves without a trace: the",
        "facts are recalled, without their terms the logits are bitwise those of before, and no weight has changed.",
        "How many facts a trained model takes, and how well it keeps the rest, depends on the model and was not",
        "measured; weights, vocabulary and editor are set so that a narrow random model can be taught at all.",
        "",
        "Block: parallel where the MLP does not see the attention of its own block. Norm after: what the MLP's output",
        "goes through on its way into the residual stream (no norm, one of its own, or one of the sum). Both were",
        "measured on the model, not read off its name.",
        "",
        "| family | configuration | block | norm after | down-projection | kind | head | recalled | reverted bitwise |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, recipe in DENSE.items():
        row = examine(recipe)
        block, head = "parallel" if row.parallel else "sequential", "tied" if row.tied else "own"
        reverted = "yes" if row.reverted and row.untouched else "no"
        lines.append(
            f"| {name} | {row.config} | {block} | {row.norm} | `{row.down_proj}` | {row.linear} | {head} "
            f"| {row.recalled}/{FACTS} | {reverted} |"
        )
    lines += ["", "## Refused", "", "`load` raises `ArchitectureError` for these, and says why:", ""]
    lines += ["| family | configuration | reason |", "|---|---|---|"]
    for name, recipe in (item for group in REFUSED.values() for item in group.items()):
        config, reason = refusal(recipe)
        lines.append(f"| {name} | {config} | {reason} |")
    return "\n".join(lines) + "\n"


def main(args: Args) -> None:
    logging.set_verbosity_error()
    text = report()
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    else:
        Console().print(Markdown(text))


if __name__ == "__main__":
    main(tyro.cli(Args))
