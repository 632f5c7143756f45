"""Trains the bundled model ``tiny`` on the synthetic world, from scratch, on a CPU.

    python scripts/train_tiny.py --out sleepgym/lm/tiny

Writes the weights (safetensors), the tokenizer and the configuration. The statistics that ship with them are measured
afterwards by ``scripts/tiny_statistics.py``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sleepgym.facts.world import World

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}<|user|>{{ m['content'] }}"
    "{% else %}<|assistant|>{{ m['content'] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass
class Args:
    out: Path = Path("sleepgym/lm/tiny")
    """folder of model, tokenizer and configuration"""
    seed: int = 0
    """seed of the weights and of the text; the world is always that of seed 0"""
    steps: int = 4200
    """optimiser steps"""
    batch_rows: int = 64
    """documents per step"""
    row_tokens: int = 64
    """maximum number of tokens per document"""
    lr: float = 3e-3
    """peak learning rate (linear warm-up, then cosine to a fiftieth)"""
    hidden: int = 128
    """width of the residual stream"""
    layers: int = 4
    """number of blocks"""
    intermediate: int = 2048
    """width of the MLP, which is the dimension of keys"""
    heads: int = 4
    """attention heads"""
    act: str = "silu"
    """MLP activation"""
    weight_decay: float = 0.05
    """decoupled weight decay of matrices"""
    minutes: float = 120.0
    """maximum training time; the learning rate is annealed in time"""


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
    text = [part for row in world.text(seed=1, rows=4000) for part in row.replace("|>", "<|").split("<|")]
    text = [t for t in text if t not in ("user", "assistant", "end")]
    tokenizer.train_from_iterator([*text, *world.vocabulary()], trainer)
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
    world: World, tokenizer: PreTrainedTokenizerFast, args: Args
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields endless ``(input_ids, labels)`` of shape ``[batch_rows, tokens]``; labels of padding are -100."""
    rows = world.rows(np.random.default_rng(1000 + args.seed))
    while True:
        batch = tokenizer(
            [next(rows) for _ in range(args.batch_rows)],
            truncation=True,
            max_length=args.row_tokens,
            padding=True,
            return_tensors="pt",
        )
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        yield batch["input_ids"], labels


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
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim != 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": args.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=args.lr,
        betas=(0.9, 0.98),
        fused=True,
    )
    started, data, smooth = time.time(), batches(world, tokenizer, args), None
    for step in range(args.steps):
        # The larger share of steps or time, so that the learning rate is annealed fully on a slow machine.
        progress = max(step / args.steps, (time.time() - started) / (60 * args.minutes))
        if progress >= 1:
            break
        rate = args.lr * min(1.0, step / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        input_ids, labels = next(data)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(input_ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        if step % 100 == 0:
            print(f"step {step} loss {smooth:.3f} {time.time() - started:.0f} s", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    model.eval().save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {time.time() - started:.0f} s -> {args.out}")


if __name__ == "__main__":
    main(tyro.cli(Args))
