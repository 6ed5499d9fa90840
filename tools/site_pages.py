"""A hook of mkdocs: pages of docs/ are the same on GitHub and in the site.

Links that leave docs/, such as `../SECURITY.md` or `../examples/demo.py`, lead to files of the repository. The site
shows these as pages: Markdown as it is, other files as code, folders as lists.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\]\()([^)\s]+)(\))")
CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
NOT_SEARCHED = "---\nsearch:\n  exclude: true\n---\n\n"
LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml"}


def on_config(config: Any) -> Any:
    """Let the navigation name files of the repository, too."""
    config.nav = _placed(config.nav)
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add every file of the repository that a page leads to, and what those lead to."""
    from mkdocs.structure.files import File, InclusionLevel

    pages = {f"docs/{file.src_uri}": None for file in files.documentation_pages()}
    waiting = [*pages, *re.findall(r"\.\./([\w./]+)", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))]
    while waiting:
        path = waiting.pop()
        if (
            path not in pages
            and (place := site_place(path)) not in files.src_uris
            and not path.startswith("docs/")
        ):
            page = File.generated(
                config, place, content=content_of(path), inclusion=InclusionLevel.NOT_IN_NAV
            )
            files.append(page)
        pages[path] = None
        waiting += [linked for linked in linked_paths(path) if linked not in pages]
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite a page's links to where the site has their targets."""
    path = repository_path(page.file.src_uri)
    parts = CODE.split(markdown)
    parts[::2] = [rewritten(part, path) for part in parts[::2]]
    return "".join(parts)


def _placed(entry: Any) -> Any:
    """Return the navigation with paths of the site in place of `../file`."""
    if isinstance(entry, dict):
        return {title: _placed(value) for title, value in entry.items()}
    if isinstance(entry, list):
        return [_placed(value) for value in entry]
    return site_place(entry.removeprefix("../")) if entry.startswith("../") else entry


def site_place(path: str) -> str:
    """Return where the site has a path of the repository."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"source/{path if path.endswith('.md') else path + '.md'}"


def repository_path(place: str) -> str:
    """Return the path in the repository of a page of the site: the inverse of `site_place`."""
    if not place.startswith("source/"):
        return f"docs/{place}"
    path = place.removeprefix("source/")
    return path if (ROOT / path).exists() else path.removesuffix(".md")


def target_of(link: str, page: str) -> str | None:
    """Return the path in the repository that a link of a page leads to; None if it leads out or within the page."""
    path = link.partition("#")[0]
    if not path or re.match(r"[a-z]+:", path):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), path))


def linked_paths(page: str) -> list[str]:
    """Return the files and folders outside docs/, and the pages, that a page leads to."""
    text = "".join(CODE.split(content_of(page))[::2])
    targets = [target_of(link, page) for _, link, _ in LINK.findall(text)]
    return [path for path in targets if path and (path.endswith(".md") or not path.startswith("docs/"))]


def rewritten(text: str, page: str) -> str:
    """Return a text of a page, code left out, with links as the site needs them."""

    def link(match: re.Match[str]) -> str:
        before, given, after = match.groups()
        target = target_of(given, page)
        if target is None:
            return match[0]
        place = posixpath.relpath(site_place(target), posixpath.dirname(site_place(page)) or ".")
        return f"{before}{place}{given[len(given.partition('#')[0]) :]}{after}"

    return LINK.sub(link, text)


def content_of(path: str) -> str:
    """Return the Markdown that shows a file or folder of the repository; code is not searched."""
    place = ROOT / path
    if place.is_dir():
        names = sorted(file.name for file in place.iterdir() if file.is_file() and file.name[0] != ".")
        return f"# {path}/\n\n" + "".join(f"- [{name}]({place.name}/{name})\n" for name in names)
    text = place.read_text(encoding="utf-8")
    if place.suffix == ".md":
        return text
    return f"{NOT_SEARCHED}# {path}\n\n```{LANGUAGES.get(place.suffix, 'text')}\n{text}```\n"
