"""The model: blocks of attention and fast weights, and how a sequence of windows passes through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sleepgym.fastweights.layers import Attention, GatedDelta, SwiGLU
from sleepgym.fastweights.state import FastState
from sleepgym.settings import at_least, require


@dataclass(frozen=True)
class ModelSpec:
    """Shape of a model.

    Attributes:
        vocabulary: Number of tokens.
        window_tokens: Most tokens that a window can have.
        width: Size of the residual stream.
        blocks: Number of blocks; each is attention, MLP, gated delta rule, MLP.
        heads: Heads of both mixers, a divisor of the width.
    """

    vocabulary: int
    window_tokens: int
    width: int = 64
    blocks: int = 2
    heads: int = 4

    def __post_init__(self) -> None:
        at_least(self, 1, "vocabulary", "window_tokens", "width", "blocks", "heads")
        require(self.width % self.heads == 0, "heads", f"a divisor of the width {self.width}", self.heads)


class Block(nn.Module):
    """Attention, MLP, gated delta rule, MLP, each of which adds to the residual stream."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.attention = Attention(spec.width, spec.heads)
        self.delta = GatedDelta(spec.width, spec.heads)
        self.mlps = nn.ModuleList(SwiGLU(spec.width) for _ in range(2))
        self.norms = nn.ModuleList(nn.RMSNorm(spec.width, eps=1e-6) for _ in range(4))

    def forward(self, h: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the residual stream and the S of this block after a pass."""
        h = h + self.attention(self.norms[0](h))
        h = h + self.mlps[0](self.norms[1](h))
        read, state = self.delta(self.norms[2](h), state)
        h = h + read
        return h + self.mlps[1](self.norms[3](h)), state


class FastWeightModel(nn.Module):
    """A causal model whose only memory between windows is the state S of its delta-rule layers.

    A context window is *digested* in N passes, in which the residual stream and S are carried from pass to pass
    (offline recurrence, Lee et al. 2026, "Do Language Models Need Sleep?", arXiv 2605.26099). An answer window is read
    in exactly one pass. When a window ends, its tokens, keys, values and residual stream are gone.

    Args:
        spec: Shape.
        seed: Seed of the weights.
    """

    def __init__(self, spec: ModelSpec, seed: int = 0) -> None:
        super().__init__()
        self.spec = spec
        with torch.random.fork_rng(devices=[]):  # modules draw weights when they are made, which are drawn anew here
            self.embedding = nn.Embedding(spec.vocabulary, spec.width)
            self.position = nn.Embedding(spec.window_tokens, spec.width)
            self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.blocks))
            self.norm = nn.RMSNorm(spec.width, eps=1e-6)
            self.head = nn.Linear(spec.width, spec.vocabulary, bias=False)
        self._begin(torch.Generator().manual_seed(seed))

    def _begin(self, generator: torch.Generator) -> None:
        """Draws the weights; what writes to the residual stream begins small, so that many passes stay in range."""
        residual = (4 * self.spec.blocks) ** -0.5
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if name.endswith(("embedding.weight", "position.weight")):
                    weight.normal_(0, 0.5, generator=generator)
                elif name.endswith("conv"):
                    weight.normal_(0, len(weight) ** -0.5, generator=generator)
                elif weight.ndim == 2:
                    scale = residual if name.endswith("out.weight") else 1.0
                    weight.normal_(0, scale * weight.shape[1] ** -0.5, generator=generator)
        for module in self.modules():
            if isinstance(module, GatedDelta):
                module.begin()

    def empty(self, batch: int) -> FastState:
        """The state of sequences that have not begun: S is zero in every layer."""
        heads, width = self.spec.heads, self.spec.width // self.spec.heads
        zeros = self.head.weight.new_zeros(batch, heads, width, width)
        return FastState((zeros,) * self.spec.blocks)

    def digest(self, tokens: Tensor, state: FastState, passes: int, frozen: bool = False) -> FastState:
        """Lets a context window pass through the blocks N times, and keeps nothing of it but S.

        Args:
            tokens: Window ``[batch, tokens]``.
            state: S before; it is not changed.
            passes: N; with 0 the window is lost.
            frozen: Whether S stays as the first pass left it, a control: later passes only read.

        Returns:
            S after.
        """
        digestion = self.begin_window(tokens)
        for number in range(passes):
            digestion, after = self.step(digestion, state)
            if number == 0 or not frozen:
                state = after
        return state

    def begin_window(self, tokens: Tensor) -> Tensor:
        """The residual stream of a window before its first pass, ``[batch, tokens, width]``."""
        place = torch.arange(tokens.shape[1], device=tokens.device)
        return self.embedding(tokens) + self.position(place)

    def step(self, h: Tensor, state: FastState) -> tuple[Tensor, FastState]:
        """One pass through all blocks: the residual stream and S after it."""
        layers = []
        for block, layer in zip(self.blocks, state.layers, strict=True):
            h, layer = block(h, layer)
            layers.append(layer)
        return h, FastState(tuple(layers))

    def answer(self, tokens: Tensor, state: FastState) -> Tensor:
        """Reads an answer window in one pass: logits ``[batch, tokens, vocabulary]``; S stays as it was."""
        h, _ = self.step(self.begin_window(tokens), state)
        return self.head(self.norm(h))

    def forward(
        self, windows: Sequence[Tensor], queries: Tensor, passes: int | Sequence[int], frozen: bool = False
    ) -> Tensor:
        """Digests context windows from an empty state, and answers.

        Args:
            windows: Context windows in order, each ``[batch, tokens]``.
            queries: Answer window ``[batch, tokens]``.
            passes: N of all windows, or of each.
            frozen: As in :meth:`digest`.

        Returns:
            Logits ``[batch, tokens, vocabulary]``, through which gradients reach every pass of every window.
        """
        state = self.empty(len(queries))
        each = [passes] * len(windows) if isinstance(passes, int) else passes
        for window, n in zip(windows, each, strict=True):
            state = self.digest(window, state, n, frozen)
        return self.answer(queries, state)
