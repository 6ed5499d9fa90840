"""The pages name files, headings, make targets and import layers that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "RELEASING.md"]
PAGES += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
FOLDERS = (
    "benchmarks|cfg|datasets|detector|docs|examples|tests|tools"  # what a path of this repository starts with
)
SPAN = re.compile(r"`((?:[^`\n]|\n(?!\n))+)`")  # code in a line, or broken over two
EXAMPLE = re.compile(r"(?:.*_)?(?:mine|my_callback)\.py")  # files that a reader of CONTRIBUTING.md would add


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def without_blocks(text):
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def links(text):
    """Yield (path, heading) of every relative link and image of a page."""
    for target in re.findall(r"\]\(([^)\s]+)\)", SPAN.sub("", without_blocks(text))):
        if not re.match(r"[a-z]+:", target):
            path, _, heading = target.partition("#")
            yield path, heading


def headings(text):
    """Return the anchors of a page's headings, as GitHub makes them."""
    lines = re.findall(r"^#+ (.+)$", without_blocks(text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).strip().replace(" ", "-") for line in lines}


def named_paths(text):
    """Return what stands in backticks, has a slash, and looks like a file or folder of this repository."""
    found = set()
    for span in SPAN.findall(without_blocks(text)):
        found.update(re.findall(rf"(?<![\w./-])(?:{FOLDERS})/[\w./*-]*", span))
        found.update(
            re.findall(r"^[\w./-]+/[\w.-]+\.py$", span)
        )  # also those that start elsewhere by mistake
    return found


def made(span):
    """Return the targets of a `make ...` command: words in small letters, so that no variable is one."""
    return re.findall(r" ([a-z]+)(?![\w=])", span) if span.startswith("make ") else []


def exists(path):
    if EXAMPLE.fullmatch(Path(path).name):
        return (ROOT / path).parent.is_dir()
    return any(ROOT.glob(path)) if "*" in path else (ROOT / path).exists()


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_to_a_file_and_to_a_heading_of_it(page):
    missing = []
    for path, heading in links(read(page)):
        target = (ROOT / page).parent / path if path else ROOT / page
        if not target.exists():
            missing.append(path)
        elif heading and heading not in headings(target.read_text(encoding="utf-8")):
            missing.append(f"{path}#{heading}")
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_every_path_in_backticks_exists(page):
    assert [path for path in sorted(named_paths(read(page))) if not exists(path)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_in_backticks_exists(page):
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    named = {name for span in SPAN.findall(without_blocks(read(page))) for name in made(span)}
    assert named - targets == set()


def test_contributing_names_the_layers_of_the_import_contract():
    contract = read("pyproject.toml").partition("\nlayers = [")[2].partition("]")[0]
    layers = [line.replace("detector.", "") for line in re.findall(r'"(.+)"', contract)]
    assert len(layers) > 10
    listed = " / ".join(f"`{layer}`" for layer in layers)
    assert listed in " ".join(read("CONTRIBUTING.md").split())


def test_the_check_sees_links_headings_and_paths():
    text = "[a](docs/no.md#top) ![b](c.png) [d](https://e.org/f.md) `[g](h.md)`\n```\n[i](j.md)\n```\n"
    assert list(links(text)) == [("docs/no.md", "top"), ("c.png", "")]
    assert headings("# Without detector\n## Checks, in one run\n```\n# no heading\n```\n") == {
        "without-detector",
        "checks-in-one-run",
    }
    assert made("make cfg docs SEED=7") == ["cfg", "docs"] and made("cmake all") == []
    spans = "`detector/no.py` `python examples/x.py best.pt` `engine/train.py` `runs/train` `docs/*.md` `0/1`"
    assert named_paths(spans) == {"detector/no.py", "examples/x.py", "engine/train.py", "docs/*.md"}
    assert exists("docs/*.md") and exists("detector/exporters/mine.py") and not exists("detector/no.py")
