"""Trains the bundled model ``tiny`` on the synthetic world, from scratch, on a CPU.

    python scripts/train_tiny.py --out sleepgym/lm/tiny

Writes the weights (safetensors), the tokenizer and the configuration. A run that was stopped goes on from its last
checkpoint when the command is repeated. The statistics that ship with the model are measured afterwards by
``scripts/tiny_statistics.py``.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sleepgym.facts.world import World

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}<|user|>{{ m['content'] }}"
    "{% else %}<|assistant|>{{ m['content'] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

BATCHES_PER_DRAW = 8
"""Batches that are drawn together and sorted by length, so that little of a batch is padding."""


@dataclass
class Args:
    out: Path = Path("sleepgym/lm/tiny")
    """folder of model, tokenizer and configuration"""
    checkpoint: Path = Path("runs/train-tiny")
    """folder of the run's state, from which it goes on; delete it to begin anew"""
    seed: int = 0
    """seed of the weights and of the text; the world is always that of seed 0"""
    steps: int = 2300
    """optimiser steps"""
    batch_rows: int = 64
    """documents per step"""
    row_tokens: int = 64
    """maximum number of tokens per document"""
    lr: float = 3e-3
    """peak learning rate (linear warm-up, then cosine to a fiftieth)"""
    hidden: int = 128
    """width of the residual stream"""
    layers: int = 2
    """number of blocks"""
    intermediate: int = 2048
    """width of the MLP, which is the dimension of keys"""
    heads: int = 4
    """attention heads"""
    act: str = "silu"
    """MLP activation"""
    weight_decay: float = 0.05
    """decoupled weight decay of matrices"""
    save_every: int = 250
    """steps between checkpoints"""


def build_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE in which every word of the world is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|bos|>", "<|end|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=16384,
        min_frequency=1,
        show_progress=False,
        special_tokens=[AddedToken(token, lstrip=True, rstrip=True, special=True) for token in special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([*world.vocabulary(), ":"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", tokenizer.token_to_id("<|bos|>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|bos|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def batches(
    world: World, tokenizer: PreTrainedTokenizerFast, args: Args, first_step: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields ``(input_ids, labels)`` of shape ``[batch_rows, tokens]`` from a step on; labels of padding are -100.

    The text of a step follows from the seed and its number, so that a run goes on where it stopped.
    """
    for step in range(first_step - first_step % BATCHES_PER_DRAW, args.steps, BATCHES_PER_DRAW):
        rng = np.random.default_rng([1000 + args.seed, step])
        rows = world.rows(rng)
        drawn = tokenizer([next(rows) for _ in range(BATCHES_PER_DRAW * args.batch_rows)])["input_ids"]
        drawn.sort(key=len)
        for number, batch in enumerate(rng.permutation(BATCHES_PER_DRAW)):
            if step + number < first_step:
                continue
            chosen = drawn[batch * args.batch_rows : (batch + 1) * args.batch_rows]
            padded = tokenizer.pad({"input_ids": [ids[: args.row_tokens] for ids in chosen]}, return_tensors="pt")
            yield padded["input_ids"], padded["input_ids"].masked_fill(padded["attention_mask"] == 0, -100)


def optimizer_of(model: LlamaForCausalLM, args: Args) -> torch.optim.AdamW:
    """AdamW with decay of matrices."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim != 2]
    groups = [
        {"params": matrices, "weight_decay": args.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), fused=True)


def save(folder: Path, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Writes the state of a run; the JSON that names the step is replaced last."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model|{name}": p.detach().contiguous() for name, p in model.named_parameters()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"{index}|{name}": value.contiguous() for name, value in state.items()}
    file = folder / f"step-{step}.safetensors"
    save_file(tensors, file)
    new = folder / "run.json.new"
    new.write_text(json.dumps({"step": step, "file": file.name}))
    new.replace(folder / "run.json")
    for old in set(folder.glob("step-*.safetensors")) - {file}:
        old.unlink()


def restore(folder: Path, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer) -> int:
    """Reads the state of a run, if there is one, and returns the next step."""
    if not (folder / "run.json").exists():
        return 0
    run = json.loads((folder / "run.json").read_text())
    tensors = load_file(folder / run["file"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors.pop(f"model|{name}"))
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split("|")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    return int(run["step"])


def main(args: Args) -> None:
    torch.manual_seed(args.seed)
    world = World(seed=0)
    tokenizer = build_tokenizer(world)
    print(f"vocabulary {len(tokenizer)}", flush=True)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=args.hidden,
        intermediate_size=args.intermediate,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.heads,
        hidden_act=args.act,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    optimizer = optimizer_of(model, args)
    first = restore(args.checkpoint, model, optimizer)
    started, smooth = time.time(), None
    for step, (input_ids, labels) in enumerate(batches(world, tokenizer, args, first), start=first):
        rate = args.lr * min(1.0, step / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / args.steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = model(input_ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        if step % 50 == 0:
            print(f"step {step} loss {smooth:.3f} {time.time() - started:.0f} s", flush=True)
        if (step + 1) % args.save_every == 0:
            save(args.checkpoint, model, optimizer, step + 1)
    args.out.mkdir(parents=True, exist_ok=True)
    model.eval().save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {time.time() - started:.0f} s -> {args.out}")


if __name__ == "__main__":
    main(tyro.cli(Args))
