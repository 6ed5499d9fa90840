"""Where the site has the files of the repository, and how links become theirs."""

import runpy
from pathlib import Path

import pytest

PAGES = runpy.run_path(str(Path(__file__).resolve().parents[1] / "tools/site_pages.py"))


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("docs/data.md", "data.md"),
        ("SECURITY.md", "source/SECURITY.md"),
        ("examples", "source/examples.md"),
        ("examples/demo.py", "source/examples/demo.py.md"),
    ],
)
def test_a_path_has_a_place_and_the_place_its_path(path, place):
    assert PAGES["site_place"](path) == place
    assert PAGES["repository_path"](place) == path


@pytest.mark.parametrize(
    ("page", "given", "link"),
    [
        ("docs/data.md", "[a](export.md#formats)", "[a](export.md#formats)"),
        ("docs/data.md", "[a](#check)", "[a](#check)"),
        ("docs/data.md", "[a](https://e.org/x.md)", "[a](https://e.org/x.md)"),
        ("docs/data.md", "[a](../SECURITY.md#versions)", "[a](source/SECURITY.md#versions)"),
        ("docs/api/index.md", "[a](../../examples/deploy)", "[a](../source/examples/deploy.md)"),
        ("SECURITY.md", "![a](docs/images/report.jpg)", "![a](../images/report.jpg)"),
        ("CONTRIBUTING.md", "[a](RELEASING.md)", "[a](RELEASING.md)"),
    ],
)
def test_a_link_leads_to_the_place_of_its_target(page, given, link):
    assert PAGES["rewritten"](given, page) == link


def test_code_is_shown_as_code_and_a_folder_as_a_list():
    assert "\n# datasets/shapes.yaml\n\n```yaml\n" in PAGES["content_of"]("datasets/shapes.yaml")
    assert "- [run_onnx.py](deploy/run_onnx.py)\n" in PAGES["content_of"]("examples/deploy")


def test_every_page_has_a_place_in_the_navigation():
    root = Path(__file__).resolve().parents[1]
    nav = (root / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    named = {line.split()[-1] for line in nav.splitlines() if line.endswith(".md")}
    pages = {path.relative_to(root / "docs").as_posix() for path in (root / "docs").rglob("*.md")}
    assert pages <= named
