"""Quantization of a model's weights, as cards name it."""

from typing import Literal

Quantization = Literal["4bit", "8bit"]
"""Precision that bitsandbytes loads weights in (extra ``quant``)."""
