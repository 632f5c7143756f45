"""Seconds that one more fact takes in the code of MEMIT's or AlphaEdit's authors, beside this project's, in turns.

    git clone https://github.com/kmeng01/memit runs/memit
    python benchmarks/editing_authors.py --method memit --model tiny --out docs/editing/authors.tiny.json

What is timed is their ``apply_..._to_model`` with their settings for GPT-J, one fact a call; a checkout is code: name
only one that you trust. A copy of it is run in which the device is that of the model. Around it, text statistics and
prefixes are ours, so that nothing has to be downloaded, blocks return tuples as they did in its day, and the start
token is counted where a prompt has one. Our targets are optimised within the clock, as theirs are.
"""

from __future__ import annotations

import copy
import importlib
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
import tyro
from torch import Tensor, nn

from benchmarks import editing
from benchmarks.common import markdown, records, timing
from benchmarks.common.records import Record
from sleepgym.editing import Editor, ModelStatistics, statistics_for
from sleepgym.editing.calibration import spec_for
from sleepgym.facts import Fact
from sleepgym.lm import LanguageModel, load, score, wrap
from sleepgym.memory.asking import raw_probe
from sleepgym.memory.overlay import Memory, Overlay


@dataclass(frozen=True)
class Method:
    """Code of a paper's authors.

    Attributes:
        title: What tables call it.
        repository: Where it is on GitHub.
        folder: Folder of its package.
        settings: Name of the class of its settings.
        more: Settings besides those of MEMIT.
        counts_starts: Whether the positions that it looks for count a start token.
    """

    title: str
    repository: str
    folder: str
    settings: str
    more: Mapping[str, Any]
    counts_starts: bool

    @property
    def files(self) -> tuple[str, ...]:
        """Files that run."""
        own = ("compute_ks", "compute_z", f"{self.folder}_hparams", f"{self.folder}_main")
        return (*(f"{self.folder}/{file}.py" for file in own), *SHARED)


SHARED = ("rome/repr_tools.py", "util/hparams.py", "util/nethook.py")
"""Files besides those of a method's own folder."""
METHODS: Mapping[str, Method] = {
    "memit": Method("the authors' MEMIT", "kmeng01/memit", "memit", "MEMITHyperParams", {}, False),
    "alphaedit": Method(
        "the authors' AlphaEdit",
        "jianghoucheng/AlphaEdit",
        "AlphaEdit",
        "AlphaEditHyperParams",
        {"model_name": "", "nullspace_threshold": 2e-2, "L2": 10},
        True,
    ),
}
REPLACED = {
    "rome/layer_stats.py": "layer_stats = None\n",
    "util/generate.py": "generate_fast = None\n",
    "util/globals.py": "STATS_DIR = None\n",
}
"""Files in place of theirs that would download text and sample prefixes."""
SETTINGS: dict[str, Any] = {
    "layer_selection": "all",
    "fact_token": "subject_last",
    "v_num_grad_steps": 25,
    "v_lr": 0.5,
    "v_weight_decay": 0.5,
    "clamp_norm_factor": 0.75,
    "kl_factor": 0.0625,
    "mom2_adjustment": True,
    "mom2_update_weight": 15000,
    "mom2_dataset": "ours",
    "mom2_n_samples": 0,
    "mom2_dtype": "float32",
}
"""Their settings for GPT-J."""
PREFIXES = 5
"""Contexts beside the bare prompt that they sample."""


@dataclass
class Args:
    method: Literal["memit", "alphaedit"] = "memit"
    """whose code is run"""
    checkout: Path | None = None
    """folder of a clone of their repository, by default runs/METHOD, whose code is run: name only one that you trust"""
    model: str = "tiny"
    """any name that sleepgym.lm.load understands, of a model whose blocks are in model.layers"""
    facts: int = 10
    """facts that each writes one by one"""
    seed: int = 0
    """draw of the facts: of the world for tiny, else of the relations that ship"""
    threads: int = 1
    """threads of torch"""
    out: Path | None = None
    """JSON with every timing"""


class Inner(nn.Module):
    """A block that returns a tuple."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor]:
        out = self.block(*args, **kwargs)
        return (out if isinstance(out, Tensor) else out[0],)


class Outer(nn.Module):
    """What a model calls in the place of a block whose tuple is to be seen by hooks."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.inner = Inner(block)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.inner.block, name)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        (out,) = self.inner(*args, **kwargs)
        return out


class Tokens:
    """A tokenizer that puts the start token before lists of prompts, and not before one text, which is a target."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, text: str | list[str], **options: Any) -> Any:
        options |= {"add_special_tokens": isinstance(text, list), "return_token_type_ids": False}
        return self.tokenizer(text, padding_side="right", **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


class Authors:
    """The authors' code on a copy of a model, which it edits.

    Args:
        args: Arguments.
        lm: The model.
        layers: Blocks to edit.
        statistics: Second moments and prefixes.
        folder: Empty folder for the copy of their code.
    """

    def __init__(
        self, args: Args, lm: LanguageModel, layers: Sequence[int], statistics: ModelStatistics, folder: Path
    ) -> None:
        self.method, self.lm, self.model = METHODS[args.method], lm, copy.deepcopy(lm.model)
        blocks: Any = self.model.get_submodule("model.layers")
        self.blocks = blocks
        for index, block in enumerate(blocks):
            blocks[index] = Outer(block)
        self.model.config.n_embd = lm.model.config.get_text_config().hidden_size
        main = self.imported(args.checkout or Path("runs") / args.method, folder)
        main.CONTEXT_TEMPLATES_CACHE = [["{}"], [f"{prefix}. {{}}" for prefix in statistics.prefixes[:PREFIXES]]]
        moments = {f"model.layers.{layer}.inner.block.mlp.down_proj": statistics.moments[layer] for layer in layers}
        main.get_cov = lambda model, tok, name, *_, **__: moments[name].float().to(lm.device)
        self.state: dict[str, Any] = {}
        if args.method == "alphaedit":
            threshold = self.method.more["nullspace_threshold"]
            projections = torch.stack([null_space(moment.float(), threshold) for moment in moments.values()])
            self.state = {"P": projections, "cache_c": torch.zeros_like(projections)}
        # Tied weights are parameters of the embedding alone.
        head = "lm_head" if "lm_head.weight" in dict(self.model.named_parameters()) else "model.embed_tokens"
        self.settings = getattr(main, self.method.settings)(
            layers=list(layers),
            v_loss_layer=len(lm.blocks) - 1,
            rewrite_module_tmp="model.layers.{}.inner.block.mlp.down_proj",
            layer_module_tmp="model.layers.{}.inner",
            mlp_module_tmp="model.layers.{}.inner.block.mlp",
            attn_module_tmp="model.layers.{}.inner.block.self_attn",
            ln_f_module="model.norm",
            lm_head_module=head,
            **SETTINGS,
            **self.method.more,
        )
        self.apply: Callable[..., Any] = getattr(main, f"apply_{self.method.folder}_to_model")

    def imported(self, checkout: Path, folder: Path) -> Any:
        """Their main module, from a copy of their files."""
        texts = dict(REPLACED)
        for name in self.method.files:
            try:
                text = (checkout / name).read_text(encoding="utf-8")
            except OSError as error:
                source = f"github.com/{self.method.repository}"
                raise SystemExit(
                    f"expected a clone of {source} in {checkout}, found {error}; clone it there"
                ) from error
            texts[name] = text.replace('"cuda"', f'"{self.lm.device}"').replace(".cuda()", f'.to("{self.lm.device}")')
        for name, text in texts.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        sys.path.insert(0, str(folder))
        try:
            main = importlib.import_module(f"{self.method.folder}.{self.method.folder}_main")
            tools: Any = importlib.import_module("rome.repr_tools")
        finally:
            sys.path.remove(str(folder))
        if self.method.counts_starts:
            return main
        positions, starts = tools.get_words_idxs_in_templates, int(self.lm.encoder.starts)

        def counted(tok: Any, context_templates: list[str], words: list[str], subtoken: str) -> list[list[int]]:
            tokenizer: Any = self.lm.tokenizer
            parts = partial(tokenizer, add_special_tokens=False)
            return [[at + starts for at in row] for row in positions(parts, context_templates, words, subtoken)]

        tools.get_words_idxs_in_templates = counted
        return main

    def write(self, fact: Fact) -> None:
        """Writes a fact."""
        before, _, after = fact.prompt.rpartition(fact.subject)
        request = {"case_id": 0, "prompt": f"{before}{{}}{after}", "subject": fact.subject}
        with redirect_stdout(io.StringIO()):
            self.apply(
                self.model,
                Tokens(self.lm.tokenizer),
                [request | {"target_new": {"str": fact.object}}],
                self.settings,
                **self.state,
            )

    def recall(self, facts: Sequence[Fact]) -> float:
        """Share of facts that the edited model recalls. It cannot be edited any more then."""
        for index, outer in enumerate(self.blocks):
            self.blocks[index] = outer.inner.block
        edited = wrap(self.model, self.lm.tokenizer, f"{self.lm.name}, edited")
        return float(score(edited, [raw_probe(edited, fact) for fact in facts]).correct.float().mean())


def null_space(moment: Tensor, threshold: float) -> Tensor:
    """Projection onto the directions in which keys of text hardly lie (Fang et al. 2025, section 3.2), ``[d, d]``.

    Args:
        moment: Second moment of keys, ``[d, d]``.
        threshold: Singular value below which a direction is one of them.
    """
    directions, values, _ = torch.linalg.svd(moment)
    kept = directions[:, values < threshold]
    return kept @ kept.T


def measured(args: Args) -> Record:
    """Seconds of every fact in both codes, in turns, and what is recalled in the end."""
    torch.set_num_threads(args.threads)
    record, lm = records.circumstances(), load(args.model, device="cpu")
    dataset: Literal["world", "relations"] = "world" if args.model == "tiny" else "relations"
    warming, *facts = editing.draw(editing.Args(dataset=dataset), args.facts + 1, args.seed)
    spec = spec_for(lm)
    statistics = statistics_for(lm, spec.layers)
    with TemporaryDirectory() as folder:
        (Path(folder) / "code").mkdir()
        authors = Authors(args, lm, spec.layers, statistics, Path(folder) / "code")
        overlay = Overlay(lm)
        editor, memory = Editor(overlay, statistics, spec, Path(folder) / "targets"), Memory()
        editor.write(Memory(), [warming])
        seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
        for n, fact in enumerate(facts):
            seconds["ours"].append(timing.seconds(partial(editor.write, memory, [fact], facts[:n])))
            seconds["theirs"].append(timing.seconds(partial(authors.write, fact)))
    recalled = score(lm, [raw_probe(lm, fact) for fact in facts], overlay.asked(memory)).correct
    return record | {
        "method": args.method,
        "model": args.model,
        "fingerprint": lm.fingerprint[:16],
        "facts": len(facts),
        "layers": list(spec.layers),
        "seconds": seconds,
        "times as long": timing.ratio(seconds["theirs"], seconds["ours"]),
        "recall": {"ours": float(recalled.float().mean()), "theirs": authors.recall(facts)},
    }


def table(record: Record) -> str:
    """Seconds per fact, their ratio, and recall, in Markdown, with the circumstances below."""
    rows = [
        [
            name,
            markdown.interval(timing.spread(record["seconds"][key]), ".2g", "median"),
            markdown.interval(record["times as long"], ".2g", "ratio") if key == "theirs" else "-",
            f"{record['recall'][key]:.2f}",
        ]
        for key, name in (("ours", "sleepgym"), ("theirs", METHODS[record["method"]].title))
    ]
    head = [f"{record['facts']} facts one by one", "s / fact, uncached (range)", "times sleepgym (range)", "recall"]
    layers = ", ".join(map(str, record["layers"]))
    return (
        f"{markdown.table(head, rows)}\n\n{record['model']}, edited in blocks {layers}: {record['machine']}, "
        f"{records.load_in_words(record)}; medians, ranges over facts."
    )


def main(args: Args) -> None:
    record = measured(args)
    records.present(record, table(record), args.out)


if __name__ == "__main__":
    main(tyro.cli(Args))
