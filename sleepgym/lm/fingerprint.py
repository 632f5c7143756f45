"""Fingerprints: what tells models apart, whatever they are called and however they are rounded."""

from __future__ import annotations

import hashlib

import torch
from transformers import PreTrainedModel


def fingerprint_of(model: PreTrainedModel) -> str:
    """SHA-256 of the architecture's name and of up to 4,096 evenly spaced values of every weight.

    Sampling keeps it cheap for billions of weights; values are rounded to bfloat16, so that the same weights loaded in
    another precision are the same model.

    Args:
        model: The model, with the weights as they were stored (rounded to half precision, some would round otherwise).
    """
    digest = hashlib.sha256(str(model.config.model_type).encode())
    for name, weight in model.named_parameters():
        flat = weight.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 4096)]
        if sample.is_floating_point():
            sample = sample.to(torch.bfloat16).float()
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(sample.cpu().numpy().tobytes())
    return digest.hexdigest()
