"""Trains the bundled model ``tiny`` on the synthetic world, from scratch, on a CPU.

    python scripts/train_tiny.py --out sleepgym/lm/tiny

Two blocks learn to read by name only where they are shown how (docs/decisions/0015-two-blocks.md). Once facts are
learned, attention is therefore trained too, in passages: one head of the first block is to look from an object, and
from where one is asked for, to the subject; and one head of the last block from there to the object that was told of
that subject. For some steps, what the latter reads there is trained to be that object.

Writes the weights (safetensors), the tokenizer and the configuration. A run that was stopped goes on from its last
checkpoint when the command is repeated. The statistics that ship with the model are measured afterwards by
``scripts/tiny_statistics.py``.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sleepgym.facts.world import Sentence, World

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}<|user|>{{ m['content'] }}"
    "{% else %}<|assistant|>{{ m['content'] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

PADDING = -100
USUAL, MANY = 0.22, 0.5
"""Share of passages among the documents."""
SUBJECT_HEAD, SOURCE_HEAD = 0, 1
"""Heads of the first and of the last block whose attention is trained."""
SMALLEST = 1e-6
"""Least attention that is told from none."""


@dataclass
class Args:
    out: Path = Path("sleepgym/lm/tiny")
    """folder of model, tokenizer and configuration"""
    checkpoint: Path = Path("runs/train-tiny")
    """folder of the run's state, from which it goes on; delete it to begin anew"""
    seed: int = 0
    """seed of the weights and of the text; the world is always that of seed 0"""
    steps: int = 3600
    """optimiser steps"""
    batch_rows: int = 64
    """documents per step"""
    part_rows: int = 16
    """documents per pass, of about the same length, so that little is padding"""
    row_tokens: int = 96
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
    start: Path | None = None
    """folder of a model to go on from; by default weights are random"""
    reading_from: int = 1500
    """first step in which attention is trained: facts are to be found at their subject before names travel elsewhere"""
    reading_steps: int = 300
    """steps from there on in which half of the documents are passages and copying is trained; 0 for none"""
    reading_weight: float = 0.3
    """weight of the losses of attention and of copying, beside the cross-entropy of tokens"""
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


@dataclass(frozen=True)
class Row:
    """One document as tokens, and the ``(query, key)`` positions that attention is trained on."""

    ids: list[int]
    subjects: list[tuple[int, int]]
    """from an object, and from the token before one, to the last token of the subject"""
    sources: list[tuple[int, int]]
    """from the token before an object to the same object where it was told"""


def row_of(document: list[Sentence], tokenizer: PreTrainedTokenizerFast, tokens: int) -> Row:
    """Tokenizes a document; attention is trained where a sentence repeats another one's fact."""
    encoded = tokenizer(" ".join(sentence.text for sentence in document))
    ids = encoded["input_ids"][:tokens]
    if all(sentence.told_by is None for sentence in document):
        return Row(ids, [], [])
    places, start = [], 0
    for sentence in document:
        subject = encoded.char_to_token(start + sentence.subject_end - 1)
        obj = encoded.char_to_token(start + sentence.object_start)
        if obj >= tokens:
            break
        places.append((subject, obj))
        start += len(sentence.text) + 1
    subjects = [(query, subject) for subject, obj in places for query in (obj, obj - 1)]
    sources = [
        (obj - 1, places[sentence.told_by][1])
        for (_, obj), sentence in zip(places, document, strict=False)
        if sentence.told_by is not None
    ]
    return Row(ids, subjects, sources)


def batch_of(
    world: World, tokenizer: PreTrainedTokenizerFast, args: Args, step: int, passages: float = USUAL
) -> list[Row]:
    """The documents of a step, which follow from the seed and its number, the shortest first."""
    documents = world.documents(np.random.default_rng([1000 + args.seed, step]), passages)
    rows = [row_of(next(documents), tokenizer, args.row_tokens) for _ in range(args.batch_rows)]
    return sorted(rows, key=lambda row: len(row.ids))


def counts_of(rows: list[Row]) -> Tensor:
    """What the losses of ``losses_of`` are sums over: predicted tokens, places of subjects, and of sources twice."""
    counts = [[len(row.ids) - 1, len(row.subjects), len(row.sources), len(row.sources)] for row in rows]
    return torch.tensor(counts).sum(0)


def losses_of(model: LlamaForCausalLM, rows: list[Row]) -> Tensor:
    """Negative log-likelihood of tokens, of attention to subjects and to sources, and of copies, ``[4]``."""
    ids = pad_sequence([torch.tensor(row.ids) for row in rows], batch_first=True, padding_value=PADDING)
    output = model(ids.clamp(min=0), output_attentions=True, output_hidden_states=True)
    tokens = F.cross_entropy(
        output.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), ignore_index=PADDING, reduction="sum"
    )
    subjects, sources = places_of([row.subjects for row in rows]), places_of([row.sources for row in rows])
    return torch.stack(
        [
            tokens,
            attention_loss(output.attentions[0][:, SUBJECT_HEAD], subjects),
            attention_loss(output.attentions[-1][:, SOURCE_HEAD], sources),
            copying_loss(model, ids, output.hidden_states[-2], sources),
        ]
    )


def places_of(pairs: list[list[tuple[int, int]]]) -> Tensor:
    """Rows, queries and keys of all pairs, ``[3, pairs]``."""
    places = [(row, query, key) for row, own in enumerate(pairs) for query, key in own]
    return torch.tensor(places, dtype=torch.long).reshape(-1, 3).T


def attention_loss(attention: Tensor, places: Tensor) -> Tensor:
    """Sum of ``-log attention`` at the places ``[3, pairs]`` of ``attention [rows, queries, keys]``."""
    rows, queries, keys = places
    return -(attention[rows, queries, keys] + SMALLEST).log().sum()


def copying_loss(model: LlamaForCausalLM, ids: Tensor, hidden: Tensor, places: Tensor) -> Tensor:
    """Cross-entropy of the tokens at the keys, from what the source's head alone would write of them.

    Args:
        model: The model.
        ids: Tokens, ``[rows, tokens]``.
        hidden: Input of the last block, ``[rows, tokens, width]``.
        places: Rows, queries and keys, ``[3, pairs]``.
    """
    rows, _, keys = places
    block = model.model.layers[-1]
    size = block.self_attn.head_dim
    head = slice(SOURCE_HEAD * size, (SOURCE_HEAD + 1) * size)
    value = block.input_layernorm(hidden[rows, keys]) @ block.self_attn.v_proj.weight[head].T
    written = model.model.norm(value @ block.self_attn.o_proj.weight[:, head].T)
    return F.cross_entropy(model.lm_head(written), ids[rows, keys], reduction="sum")


def model_of(tokenizer: PreTrainedTokenizerFast, args: Args) -> LlamaForCausalLM:
    """An untrained model, whose attention weights can be read."""
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
    return LlamaForCausalLM._from_config(config, attn_implementation="eager")


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
    model = model_of(tokenizer, args)
    if args.start is not None:
        model.load_state_dict(load_file(args.start / "model.safetensors"), strict=False)
    optimizer = optimizer_of(model, args)
    first = restore(args.checkpoint, model, optimizer)
    started, smooth = time.time(), None
    for step in range(first, args.steps):
        rate = args.lr * min(1.0, step / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / args.steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        reading = step >= args.reading_from
        begins = reading and step < args.reading_from + args.reading_steps
        weights = torch.tensor([1.0, *(args.reading_weight * on for on in (reading, reading, begins))])
        rows = batch_of(world, tokenizer, args, step, MANY if begins else USUAL)
        counts, losses = counts_of(rows).clamp(min=1), torch.zeros(4)
        for start in range(0, len(rows), args.part_rows):
            part = losses_of(model, rows[start : start + args.part_rows]) / counts
            (part @ weights).backward()
            losses += part.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        smooth = losses if smooth is None else 0.98 * smooth + 0.02 * losses
        if step % 50 == 0:
            named = zip(("tokens", "subjects", "sources", "copies"), smooth.tolist(), strict=True)
            print(f"step {step} {' '.join(f'{n} {x:.3f}' for n, x in named)} {time.time() - started:.0f} s", flush=True)
        if (step + 1) % args.save_every == 0:
            save(args.checkpoint, model, optimizer, step + 1)
    args.out.mkdir(parents=True, exist_ok=True)
    model.eval().save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {time.time() - started:.0f} s -> {args.out}")


if __name__ == "__main__":
    main(tyro.cli(Args))
