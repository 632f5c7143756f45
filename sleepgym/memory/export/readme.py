"""README of an exported memory: its contents, its base model, and how to load it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from sleepgym.facts.fact import Fact
from sleepgym.lm.catalogue import named_model
from sleepgym.lm.language_model import LanguageModel
from sleepgym.memory.overlay import Factors, Memory
from sleepgym.memory.owners import EDIT

_GATED = [
    "",
    "**Not quite here**: some terms were gated, and acted on the keys of their own subjects only. PEFT has no gates:",
    "they act everywhere, and answers about other subjects move. Checkpoints of sleepgym keep gates.",
]

MOST_FACTS = 50
"""Maximum number of facts that are listed; further ones are counted."""


def model_card(lm: LanguageModel, memory: Memory, pairs: Factors, facts: Sequence[Fact] = ()) -> str:
    """Returns the README as Markdown, with the front matter of a PEFT adapter.

    Args:
        lm: The base model.
        memory: The exported memory.
        pairs: Exported factors by module, ``A [r, d_in]`` and ``B [d_out, r]``.
        facts: Facts that the memory was taught, to list.
    """
    owners = [owner for owner, term in memory.terms.items() if term.factors and term.scale != 0]
    edits = sum(owner.startswith(EDIT) for owner in owners)
    off = len(memory.terms) - len(owners)
    ranks = {name: a.shape[0] for name, (a, _) in pairs.items()}
    tensors = [tensor for pair in pairs.values() for tensor in pair]
    origin, code = _base(lm)
    return "\n".join(
        [
            "---",
            f"base_model: {json.dumps(lm.name, ensure_ascii=False)}",
            "library_name: peft",
            "pipeline_tag: text-generation",
            "tags:",
            "- lora",
            "- sleepgym",
            "---",
            "",
            f"# A memory for {_escaped(lm.name)}",
            "",
            "A LoRA adapter that holds what a language model was taught by sleepgym: facts written as edits, and what",
            "sleep made of them. On the untouched base model it gives the logits of the model that was taught.",
            *(_GATED if memory.gated else []),
            "",
            *_table(
                "|",
                [
                    ("Base model", origin),
                    ("Fingerprint of the base", f"`{lm.fingerprint}`"),
                    ("Terms", f"{len(owners)}: {edits} of edits, {len(owners) - edits} of sleep's adapter"),
                    ("Terms switched off and left out", str(off)),
                    *([("Terms whose gates are left out", str(memory.gated))] if memory.gated else []),
                    ("Rank", f"at most {max(ranks.values())} on a module, {sum(ranks.values())} in total"),
                    ("Size", f"{sum(t.numel() for t in tensors):,} numbers, {sum(t.nbytes for t in tensors):,} bytes"),
                    ("Written for", f"PEFT {version('peft')}"),
                ],
            ),
            "",
            "## Use",
            "",
            "```python",
            *code,
            'model = PeftModel.from_pretrained(base, ".")  # the folder of this file',
            "",
            "# To have a plain model with the memory in its weights:",
            "merged = model.merge_and_unload()",
            "```",
            *_taught(facts),
            "",
            "## Rank by module",
            "",
            *_table("module | rank", [(f"`{name}`", str(rank)) for name, rank in ranks.items()]),
            "",
        ]
    )


def _base(lm: LanguageModel) -> tuple[str, list[str]]:
    """Returns the origin of the base model, and lines of Python that load it."""
    dtype = str(lm.dtype).removeprefix("torch.")
    entry = named_model(lm.name)
    if entry is not None:
        imports, expression = [*entry.imports, "from peft import PeftModel"], entry.expression.format(dtype=dtype)
        return entry.origin, [*imports, "", f"base = {expression}"]
    file = Path(lm.name)
    gguf = file.suffix == ".gguf"
    where = f"{str(file.parent)!r}, gguf_file={file.name!r}" if gguf else repr(lm.name)
    imports = ["from peft import PeftModel", "from transformers import AutoModelForCausalLM"]
    return _escaped(lm.name), [*imports, "", f'base = AutoModelForCausalLM.from_pretrained({where}, dtype="{dtype}")']


def _taught(facts: Sequence[Fact]) -> list[str]:
    if not facts:
        return []
    rows = [(_escaped(f.subject), _escaped(f.prompt), _escaped(f.object)) for f in facts[:MOST_FACTS]]
    more = len(facts) - len(rows)
    return [
        "",
        "## Taught",
        "",
        *_table("subject | prompt | object", rows),
        *(["", f"and {more:,} more"] if more else []),
    ]


def _table(head: str, rows: Iterable[Sequence[str]]) -> list[str]:
    columns = head.count("|") + 1
    return [f"| {head} |", "|" + "---|" * columns, *(f"| {' | '.join(row)} |" for row in rows)]


def _escaped(text: str) -> str:
    """Returns a text on one line with Markdown and HTML escaped."""
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
