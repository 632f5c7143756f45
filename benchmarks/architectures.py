"""Teaches five facts to a small random model of one family after another, and takes them back.

    python benchmarks/architectures.py --json docs/architectures.json --out docs/architectures.md

What depends on an architecture is whether an edit finds its place, is felt at the output, and leaves without a
trace; none of that needs a trained model. How many facts a model holds does, and is not measured here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
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

from benchmarks.architecture_families import ATTENTION, DENSE, REFUSED, SIZE, TOKENS, Recipe
from benchmarks.common import markdown, records
from benchmarks.common.records import Record
from sleepgym.editing import Editor, EditSpec, ModelStatistics
from sleepgym.editing.covariance import second_moments
from sleepgym.facts import Fact, World
from sleepgym.lm import ArchitectureError, LanguageModel, find_blocks, score
from sleepgym.lm.architecture import require_causal
from sleepgym.lm.language_model import hooked
from sleepgym.memory.overlay import Memory, Overlay

# The customary 0.02 suits wide models; in narrow ones no linear, and so no subject, would be heard.
LOUD = {"initializer_range": 0.15}
EMBEDDING, MLP = 0.15, 0.7
"""Root mean square of what enters the first block, and of what leaves every MLP."""
FACTS = 5

# Nothing in a random model was trained to read facts: a target has far to go (clamp, steps, rate), there is no
# knowledge to be spared (KL), and each fact is asked just as it was taught (no prefixes). No advice for real models.
SPEC = EditSpec(
    layers=(0,), prefixes=0, steps=100, learning_rate=0.5, clamp=20.0, stop_nll=0.02, kl_weight=0.0, norm_weight=0.0,
    covariance_weight=10.0, ridge=1e-4,
)  # fmt: skip


@dataclass
class Args:
    out: Path | None = None
    """Markdown whose marked tables are replaced; by default they are printed"""
    json: Path | None = None
    """JSON with every row"""


@dataclass(frozen=True)
class Row:
    """Findings about one family."""

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


def measured() -> Record:
    """Every family that can be edited, and every one that cannot, with the reason."""
    record = records.circumstances() | {"transformers": transformers.__version__, "facts": FACTS}
    record["edited"] = [{"family": name} | asdict(examine(recipe)) for name, recipe in DENSE.items()]
    record["refused"] = [
        {"family": name} | dict(zip(("config", "reason"), refusal(recipe), strict=True))
        for group in REFUSED.values()
        for name, recipe in group.items()
    ]
    return record


def contents(record: Record) -> dict[str, str]:
    """Blocks of the page."""
    head = ("family", "configuration", "block", "norm after", "down-projection", "kind", "head", "recalled",
            "reverted bitwise")  # fmt: skip
    edited = [
        [
            row["family"],
            row["config"],
            "parallel" if row["parallel"] else "sequential",
            row["norm"],
            f"`{row['down_proj']}`",
            row["linear"],
            "tied" if row["tied"] else "own",
            f"{row['recalled']}/{record['facts']}",
            "yes" if row["reverted"] and row["untouched"] else "no",
        ]
        for row in record["edited"]
    ]
    refused = [[row["family"], row["config"], row["reason"]] for row in record["refused"]]
    circumstances = f"transformers {record['transformers']}, {record['machine']}; {record['facts']} facts each."
    return {
        "edited": f"{markdown.table(head, edited)}\n\n{circumstances}",
        "refused": markdown.table(("family", "configuration", "reason"), refused),
    }


def main(args: Args) -> None:
    logging.set_verbosity_error()
    record = measured()
    blocks = contents(record)
    if args.json:
        records.write(args.json, record)
    if args.out:
        markdown.write(args.out, blocks, "Architectures", "benchmarks/architectures.py")
    if not args.json and not args.out:
        Console().print(*map(Markdown, blocks.values()))


if __name__ == "__main__":
    main(tyro.cli(Args))
