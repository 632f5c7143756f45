"""The parts of a block: attention within a window, the gated delta rule, and the MLP."""

from __future__ import annotations

import math
from inspect import unwrap

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule

CONV_TOKENS = 4
"""Width of the causal convolution in front of the delta rule, as in Gated DeltaNet."""

# The plain torch function: its wrapper takes another kernel where one is installed, and results would depend on that.
chunked_delta_rule = unwrap(torch_chunk_gated_delta_rule)


class Attention(nn.Module):
    """Causal self-attention among the tokens of one window; it keeps nothing when the window ends.

    Args:
        width: Size of the residual stream.
        heads: Number of heads, a divisor of the width.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        """Returns what attention adds to ``h`` ``[batch, tokens, width]``."""
        query, key, value = self.project(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        read = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(read.transpose(1, 2).flatten(-2))


class GatedDelta(nn.Module):
    """The gated delta rule: a layer whose state S is a matrix per head that is written as tokens pass.

    For each token, ``S_t = a_t S_(t-1) (I - b_t k_t k_t^T) + b_t v_t k_t^T`` and ``o_t = S_t q_t`` (Yang et al. 2025,
    "Gated Delta Networks", eq. 10). Queries, keys and values come from a short causal convolution, keys and queries
    have length 1, and the output is normalised per head and gated. Here S is stored transposed, keys by values.

    Args:
        width: Size of the residual stream.
        heads: Number of heads, a divisor of the width.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.conv = nn.Parameter(torch.empty(CONV_TOKENS, 3 * width))
        self.gates = nn.Linear(width, 2 * heads)
        self.gate = nn.Linear(width, width, bias=False)
        self.norm = nn.RMSNorm(self.head_width, eps=1e-6)
        self.out = nn.Linear(width, width, bias=False)

    def begin(self) -> None:
        """Sets decays so that S forgets slowly at first: by 0.1 to 1 % per token, differently in every head."""
        decay = torch.logspace(-3, -2, self.heads)
        with torch.no_grad():
            self.gates.bias[: self.heads] = decay.expm1().log()  # inverse of softplus
            self.gates.bias[self.heads :] = 0.0

    def forward(self, h: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Reads and writes S while the tokens of a window pass.

        Args:
            h: Normalised residual stream ``[batch, tokens, width]``.
            state: S ``[batch, heads, head_width, head_width]``; it is not changed.

        Returns:
            What the layer adds to ``h``, and the S that it leaves.
        """
        query, key, value = F.silu(self._convolved(self.project(h))).unflatten(-1, (3, self.heads, -1)).unbind(2)
        decay, rate = self.gates(h).chunk(2, -1)
        read, state = chunked_delta_rule(
            query,
            key,
            value,
            g=-F.softplus(decay),
            beta=rate.sigmoid(),
            chunk_size=h.shape[1],  # windows are short: one chunk, no padding
            initial_state=state,
            output_final_state=True,
            use_qk_l2norm_in_kernel=True,
        )
        gate = self.gate(h).unflatten(-1, (self.heads, -1))
        return self.out((self.norm(read) * F.silu(gate)).flatten(-2)), state

    def _convolved(self, x: Tensor) -> Tensor:
        """Mixes each channel with those of the tokens before; sums of products, which CPUs do faster than Conv1d."""
        padded = F.pad(x, (0, 0, CONV_TOKENS - 1, 0))
        shifted = [padded[:, lag : lag + x.shape[1]] * self.conv[lag] for lag in range(CONV_TOKENS)]
        return shifted[0] + shifted[1] + shifted[2] + shifted[3]


class SwiGLU(nn.Module):
    """The gated MLP of Shazeer 2020, "GLU Variants Improve Transformer"; its inner width is 8/3 of the outer one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = math.ceil(8 * width / 3 / 8) * 8
        self.project = nn.Linear(width, 2 * inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        """Returns what the MLP adds to ``h``."""
        value, gate = self.project(h).chunk(2, -1)
        return self.out(value * F.silu(gate))
