"""The page for people who come from ultralytics names every argument, and none wrongly."""

import re
from pathlib import Path

from detector.settings import SETTINGS_OF
from detector.unsupported import ABSENT, RENAMED

PAGE = (Path(__file__).resolve().parents[1] / "docs/from-ultralytics.md").read_text(encoding="utf-8")
HERE = {name for settings in SETTINGS_OF.values() for name in settings.model_fields}


def names_in(text):
    return set(re.findall(r"`(\w+)=?`", text))


def part(begin, end):
    return PAGE.partition(f"**{begin}")[2].partition(f"**{end}")[0]


def first_column(text):
    return names_in(" ".join(row.split("|")[1] for row in text.splitlines() if row.startswith("|")))


def test_what_has_the_same_name_is_a_setting_here():
    names = names_in(part("Same name", "More in"))
    assert len(names) > 80
    assert names - HERE == set()
    assert names & (set(ABSENT) - HERE) == set()


def test_every_argument_that_is_not_here_is_on_the_page_with_what_to_use():
    listed = first_column(part("Other name", "Not here")) | first_column(part("Not here", "Only here"))
    assert (set(ABSENT) - HERE) - listed == set()
    assert set(RENAMED) <= listed
    assert first_column(part("Not here", "Only here")) - set(ABSENT) == set()


def test_what_is_said_to_be_only_here_is_here():
    names = names_in(part("Only here", "never"))
    known = HERE | set(SETTINGS_OF)
    assert {"clip_grad", "monitor"} <= names
    assert set(names_in(PAGE.partition("**Only here.**")[2].partition("\n\n")[0])) - known == set()
