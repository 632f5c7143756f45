"""A hook of mkdocs: links that lead out of docs/ go to the repository's site.

On GitHub, pages link to scripts and cards by relative paths. A link to something that is not there is a warning, which
``mkdocs build --strict`` makes an error.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

log = logging.getLogger("mkdocs.hooks.site_links")
LINK = re.compile(r"(\]\()(?!\w+:|#)([^)#\s]+)")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Rewrites the links of a page; called by mkdocs for each."""
    docs = Path(config.docs_dir)
    return rewritten(markdown, docs / page.file.src_uri, docs, config.repo_url.rstrip("/"))


def rewritten(markdown: str, page: Path, docs: Path, repository: str) -> str:
    """Returns a page with links to the repository's site where they led out of the documentation.

    Args:
        markdown: Text of the page.
        page: File of the page.
        docs: Folder of the documentation; the repository is around it.
        repository: Address of the repository.
    """
    root = docs.resolve().parent

    def link(match: re.Match[str]) -> str:
        target = (page.parent / match[2]).resolve()
        if target.is_relative_to(docs.resolve()) and not target.is_dir():
            return match[0]  # mkdocs looks whether it is there
        if not target.exists() or not target.is_relative_to(root):
            log.warning("%s: expected a file or folder of the repository, found a link to %s", page, match[2])
            return match[0]
        kind = "tree" if target.is_dir() else "blob"
        return f"{match[1]}{repository}/{kind}/main/{target.relative_to(root).as_posix()}"

    return LINK.sub(link, markdown)
