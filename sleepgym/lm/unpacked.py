"""Copies of GGUF files in the cache, with their weights unpacked and their tokenizers built.

To unpack a file takes longer than to use it for a short while, and several times its memory. A copy is made at the
first load of a file and mapped into memory by later ones. It is made anew if it is damaged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from sleepgym import files
from sleepgym.files import cache_dir
from sleepgym.lm.fingerprint import fingerprint_of

LARGEST_COPY_GIB = 8.0
"""Copies that would be larger are not kept: their files are unpacked at every load."""

LOCAL: Mapping[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""How files of this machine are read: no hub is asked, and no Python that lies beside them is run or offered to be."""

_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_TOKENIZER = "tokenizer.json"


def load_weights(file: Path, load: Callable[[Path], PreTrainedModel]) -> PreTrainedModel | None:
    """Loads the copy of a GGUF file's weights, which is made if it is not there or damaged.

    Args:
        file: The GGUF file.
        load: Loads a model from a folder with a configuration and safetensors.

    Returns:
        The model; None if its copy would be too large, or cannot be kept on this disk.
    """
    folder = cache_dir("unpacked") / _name_of(file)

    def found() -> PreTrainedModel:
        model = load(folder)
        _require_whole(model, _metadata(folder)["fingerprint"])
        return model

    with suppress(Exception):  # whatever is wrong with it
        if _metadata(folder)["transformers"] == transformers.__version__:
            return found()
    try:
        kept = _unpack(file, folder)
    except OSError:  # the disk is full, or may not be written
        return None
    return found() if kept else None


def load_tokenizer(file: Path) -> PreTrainedTokenizerBase:
    """Loads the copy of a GGUF file's tokenizer, which is made if it is not there or damaged.

    Args:
        file: The GGUF file.
    """
    folder = cache_dir("tokenizers") / _name_of(file)
    with suppress(Exception):
        return AutoTokenizer.from_pretrained(folder, **LOCAL)
    built = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, **LOCAL)
    with TemporaryDirectory() as made:
        built.save_pretrained(made)
        # The vocabulary last: a folder without it is no tokenizer.
        paths = sorted(Path(made).iterdir(), key=lambda path: path.name == _TOKENIZER)
        try:
            files.write_all(folder, {path.name: path.read_bytes() for path in paths})
        except OSError:  # the disk is full, or may not be written
            folder = Path(made)
        # From files, as later loads read it.
        return AutoTokenizer.from_pretrained(folder, **LOCAL)


def _name_of(file: Path) -> str:
    """The name of a file's copies: those of another file, or of another version of it, are elsewhere."""
    stat = file.stat()
    return hashlib.sha256(f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}".encode()).hexdigest()[:32]


def _metadata(folder: Path) -> dict[str, str]:
    """What is known of a copy: its fingerprint, and the version of transformers that read the file."""
    with safe_open(folder / _WEIGHTS, framework="pt") as weights:
        return dict(weights.metadata() or {})


def _require_whole(model: PreTrainedModel, fingerprint: str) -> None:
    """Compares what was read with what was written, where weights are neither quantized nor spread over devices.

    Raises:
        OSError: They differ.
    """
    plain = not hasattr(model, "hf_device_map") and not getattr(model, "is_quantized", False)
    if plain and fingerprint_of(model) != fingerprint:
        raise OSError("expected the weights that were unpacked, found others; the disk may be failing")


def _unpack(file: Path, folder: Path) -> bool:
    """Writes the copy of a file's weights; in float32, so that they can be rounded to any type as the file's could.

    Returns:
        Whether there is one: it may be too large.

    Raises:
        OSError: It cannot be written.
    """
    config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, **LOCAL)
    described = json.loads(config.to_json_string(use_diff=False)) | {"dtype": "float32"}
    for passing in ("_name_or_path", "quantization_config"):
        described.pop(passing, None)
    with torch.device("meta"):
        size = sum(weight.nbytes for weight in AutoModelForCausalLM.from_config(config).float().parameters())
    if size > LARGEST_COPY_GIB * 2**30:
        return False
    # With its configuration, since to find that in the file takes seconds: its vocabulary is there as well.
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, config=config, dtype=torch.float32, **LOCAL
    )
    kept = model.state_dict()
    # Tied weights once, under their first name.
    weights = {name: weight.detach().contiguous() for name, weight in model.named_parameters()}
    weights |= {name: buffer for name, buffer in model.named_buffers() if name in kept}
    about = {"format": "pt", "fingerprint": fingerprint_of(model), "transformers": transformers.__version__}
    files.write(folder / _CONFIG, json.dumps(described, indent=1).encode())
    files.write_with(folder / _WEIGHTS, lambda part: save_file(weights, part, about))
    return True
