"""JSON files: written all or nothing, and what is wrong with one in a few words."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationError


def write(path: Path, content: BaseModel) -> None:
    """Writes a model as JSON; whatever happens, the file is the old one or the new one.

    Args:
        path: Where to; its folder is made.
        content: What.

    Raises:
        OSError: It cannot be written.
    """
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    part.write_text(content.model_dump_json(indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def first_mistake(error: ValidationError) -> str:
    """The first thing that validation found, as ``a mistake in where: what``."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"a mistake{f' in {where}' if where else ''}: {first['msg']}"
