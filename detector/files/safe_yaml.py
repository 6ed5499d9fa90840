"""YAML from untrusted files: plain data only, within limits.

`yaml.safe_load` makes no objects, but a small file can still ask for endless work: aliases that multiply,
thousands of nested lists, numbers of a million digits. Here such files end in one sentence.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode

from detector.files.bounds import LIMITS, BoundsError, require_bounded
from detector.files.text import decode_text

MAX_BYTES = 1 << 20
MAX_DIGITS = 100  # of a number

NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class YamlError(yaml.YAMLError):
    """A text is not YAML, holds more than plain data, or exceeds a limit."""


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        YamlError: If the file is not YAML of plain data or exceeds a limit.
        OSError: If it can't be read.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise YamlError(f"it has more than {MAX_BYTES:,} bytes")
    try:
        return parse_yaml(decode_text(content))
    except UnicodeDecodeError as error:
        raise YamlError(f"it is not UTF-8 text: {error}") from None


def parse_yaml(text: str) -> Any:
    """Turn YAML into None, bool, int, float, str, date, bytes, list, dict and set.

    Raises:
        YamlError: If the text is not YAML of plain data or exceeds a limit.
    """
    try:
        return yaml.load(text, _Loader)
    except YamlError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        # the constructors of dates, numbers and pairs let the plain errors of malformed text through
        raise YamlError(" ".join(str(error).split()) or type(error).__name__) from None


class _Loader(yaml.SafeLoader):
    """A safe loader that looks at the tree of a document before it makes anything of it."""

    depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """Read one node, unless it lies too deep."""
        self.depth += 1
        if self.depth > LIMITS["levels"]:
            raise YamlError(f"it is nested deeper than {LIMITS['levels']} levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def get_single_node(self) -> Node | None:
        """Read the document's tree and measure it."""
        node = super().get_single_node()
        if node is not None:
            try:
                require_bounded(node, _children)
            except BoundsError as error:
                raise YamlError(f"with its aliases it has {error}") from None
        return node


def _children(node: Node) -> Iterable[Node] | None:
    """Return the nodes of a list or map; None for a single value, which has to be short if it is a number."""
    if isinstance(node, ScalarNode):
        if node.tag in NUMBER_TAGS and len(node.value) > MAX_DIGITS:
            raise YamlError(f"a number has more than {MAX_DIGITS} digits")
        return None
    assert isinstance(node, CollectionNode)
    return chain.from_iterable(node.value) if isinstance(node, MappingNode) else node.value
