"""Stop the build if a page would load something from the network: the site must work without."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

# What a browser fetches by itself; a link that a reader follows is none of it.
LOADS = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\ssrc=["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|icon|preload|preconnect|dns-prefetch|manifest))"""
    r"""[^>]*?\shref=["']?((?:https?:)?//[^"'\s>]+)""",
    re.IGNORECASE,
)
CSS_LOADS = re.compile(r"""(?:url\(|@import\s+)["']?((?:https?:)?//[^"')\s]+)""", re.IGNORECASE)


def loads(text: str, *, css: bool = False) -> list[str]:
    """Return the addresses on other machines that a page or a style sheet loads by itself."""
    found = (CSS_LOADS if css else LOADS).finditer(text)
    return [next(group for group in match.groups() if group) for match in found]


def on_post_build(config: Any) -> None:
    """Look through the whole site; MkDocs calls this."""
    site = Path(config.site_dir)
    for path in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        text = path.read_text(encoding="utf-8")
        if found := loads(text, css=path.suffix == ".css"):
            raise PluginError(f"{path.relative_to(site)} loads {found[0]}; keep a copy in docs/")
