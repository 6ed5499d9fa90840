"""Rewrite the tables of docs/callbacks.md: the events and the ready-made callbacks; run by `make docs`."""

from __future__ import annotations

import re
from pathlib import Path

from detector.reference import events_markdown, ready_made_markdown

PAGE = Path(__file__).with_name("callbacks.md")


def fill(page: str) -> str:
    """Return the page with new tables between its markers."""
    for name, table in (("events", events_markdown()), ("ready-made", ready_made_markdown())):
        begin, end = f"<!-- {name}: written by `make docs` -->", f"<!-- end of {name} -->"
        page, found = re.subn(
            f"{begin}.*?{end}",
            lambda _, b=begin, t=table, e=end: f"{b}\n{t}{e}",  # type: ignore[misc]
            page,
            flags=re.DOTALL,
        )
        if found != 1:
            raise SystemExit(
                f"{PAGE}: expected the markers {begin} and {end} once each, found them {found} times"
            )
    return page


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
