"""HTML documents of our own scripts and styles, and the policies that let them do no more than they need."""

from __future__ import annotations

import base64
import json
from functools import cache
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

STATIC = Path(__file__).parent / "static"
SCRIPTS = ("charts.js", "views.js")  # of both pages


@cache
def static_text(name: str) -> str:
    """Return a file of `static`."""
    return (STATIC / name).read_text(encoding="utf-8")


def json_for_script(value: Any) -> str:
    """Return JSON that fits into a script element: nothing in it ends the element, or starts a comment.

    Raises:
        ValueError: for NaN and infinity.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def whole_page(title: str, data: Any, script: str) -> str:
    """Return a page that needs no other file and no network.

    Its policy allows the scripts and the style in it by their hashes, images within it, and nothing else: neither
    other scripts, whatever a name in the data holds, nor any request.

    Args:
        title: shown by the browser; escaped here.
        data: plain data, which the scripts read from the element `data`.
        script: name of the file in `static` that builds the page.
    """
    style, code = static_text("style.css"), "\n".join(static_text(name) for name in (*SCRIPTS, script))
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_hash(code)}'",
            f"style-src '{_hash(style)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<meta name="referrer" content="no-referrer">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#main">to the content</a>
<header class="top"></header>
<main id="main"><noscript>The page is made by a script within it; allow scripts to see it.</noscript></main>
<footer></footer>
<script type="application/json" id="data">{json_for_script(data)}</script>
<script>{code}</script>
</body>
</html>
"""


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}"
