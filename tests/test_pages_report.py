"""report.html, by parsing it: what is in it, and that nothing in it runs but our own scripts."""

from __future__ import annotations

import base64
import json
import re
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.evaluations import evaluation_of, jpeg_of
from support.runs import write_run

from detector.cli import main
from detector.errors import DataError
from detector.pages.content import checked_jpeg, log_text, metric_columns
from detector.pages.html import json_for_script
from detector.pages.report import write_report

EVIL = "</script><script>alert(1)</script><!--"


class Parsed(HTMLParser):
    """The elements of a page, and the text of its scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.data = json.loads(next(text for _, attrs, text in self.texts if attrs.get("id") == "data"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] in ("script", "style") and data.strip():
            self.texts.append((*self.elements[-1], data))


def report_of(folder: Path, evaluation: Any = None, **run: Any) -> Parsed:
    write_run(folder, **run)
    if evaluation is not None:
        (folder / "evaluation.json").write_text(
            evaluation if isinstance(evaluation, str) else json.dumps(evaluation)
        )
    return Parsed(write_report(folder))


def test_the_report_holds_the_run(tmp_path: Path) -> None:
    data = report_of(tmp_path / "train", evaluation_of(["cat", "dog"]), settings={"lr0": 0.02}).data
    assert (data["name"], data["state"], data["problems"]) == ("train", "finished", [])
    assert data["status"]["stop_reason"] == "all 3 epochs are done"
    assert data["status"]["data"]["fingerprint"] == "0011223344556677"
    assert {"name": "lr0", "value": "0.02", "default": "none"} in data["settings"]
    assert data["metrics"]["epoch"] == [1, 2, 3]
    assert data["metrics"]["metrics/mAP50"] == [0.25, 0.5, 0.75]
    assert data["log"].startswith("epoch 1/3\n")
    assert data["seed"] == 0
    assert [row["name"] for row in data["evaluation"]["classes"]] == ["cat", "dog"]


def test_the_plot_of_the_labels_is_in_the_report(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    plot, other = folder / "labels.jpg", tmp_path / "other.jpg"
    jpeg = jpeg_of(np.full((40, 60, 3), 200, np.uint8))
    assert report_of(folder).data["labels"] is None
    plot.write_bytes(base64.b64decode(jpeg))
    assert Parsed(write_report(folder)).data["labels"] == jpeg
    plot.write_bytes(b"<script>")
    assert Parsed(write_report(folder)).data["labels"] is None, "what is not a JPEG is left out"
    plot.unlink()
    other.write_bytes(base64.b64decode(jpeg))
    plot.symlink_to(other)
    assert Parsed(write_report(folder)).data["labels"] is None, "links are not followed"


def test_it_needs_no_network_and_no_other_file(tmp_path: Path) -> None:
    page = report_of(tmp_path / "train", evaluation_of(["cat"]))
    loaded = [value for _, attrs in page.elements for key, value in attrs.items() if key in ("src", "href")]
    assert loaded == ["data:,", "#main"]
    assert [
        tag for tag, _ in page.elements if tag in ("img", "iframe", "object", "embed", "base", "form")
    ] == []
    assert not any(key.startswith("on") or key == "style" for _, attrs in page.elements for key in attrs)


def test_its_policy_allows_our_script_and_style_by_hash_only(tmp_path: Path) -> None:
    page = report_of(tmp_path / "train")
    policy = next(attrs["content"] for tag, attrs in page.elements if "http-equiv" in attrs) or ""
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split("; ")}
    hashes = {
        tag: f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"
        for tag, attrs, text in page.texts
        if "type" not in attrs
    }
    assert rules == {
        "default-src": ["'none'"], "script-src": [hashes["script"]], "style-src": [hashes["style"]],
        "img-src": ["data:"], "base-uri": ["'none'"], "form-action": ["'none'"],
    }  # fmt: skip


def test_hostile_names_are_data(tmp_path: Path) -> None:
    evaluation = evaluation_of([EVIL, "\x1b[31mred", "x" * 1_000_000])
    settings = {EVIL: EVIL, "name": "y" * 1_000_000}
    page = report_of(tmp_path / "<script>alert(2)<", evaluation, settings=settings, error=f"\x1b[0m{EVIL}")
    path = tmp_path / "<script>alert(2)<" / "report.html"
    assert len([tag for tag, _ in page.elements if tag == "script"]) == 2
    assert page.data["evaluation"]["classes"][0]["name"] == EVIL
    assert page.data["status"]["error"] == f"\\x1b[0m{EVIL}"
    assert "\x1b" not in path.read_text()
    assert "alert(1)</script>" not in path.read_text()
    assert path.stat().st_size < 2_000_000


def test_json_ends_no_script() -> None:
    text = json_for_script({"a": f"{EVIL} & \u2028"})
    assert not re.search(r"[<>&\u2028]", text)
    assert json.loads(text) == {"a": f"{EVIL} & \u2028"}


def test_eighty_classes_fit_into_five_megabytes(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(80)]
    evaluation = evaluation_of(names, images=60)  # twenty images of noise, which JPEG compresses badly
    report_of(tmp_path / "train", evaluation, epochs=300)
    assert len(evaluation["samples"]) == 20
    assert len(evaluation["curves"]["classes"]) == 80
    assert (tmp_path / "train/report.html").stat().st_size < 5_000_000


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"), ("[]", "is not a table"), ('{"final": true}', "is not as expected"),
        ("[" * 90_000, "nested"),
        ('{"final": false, "best_confidence": 1, "speed": {}, "classes": [{"name": 3}]}', "classes is not as expected"),
    ],
)  # fmt: skip
def test_an_evaluation_of_a_stranger_is_named_and_left_out(tmp_path: Path, content: str, said: str) -> None:
    data = report_of(tmp_path / "train", content).data
    assert data["evaluation"] is None
    assert said in data["problems"][0]
    assert data["metrics"]["epoch"] == [1, 2, 3]


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e["samples"][0]["found"].append([[0, 0, 1], 0, 0.5, "correct"]),
        lambda e: e["samples"][0]["found"].append([[0, 0, 1, 1], 0, 0.5, "constructor"]),
        lambda e: e["confusion"]["matrix"].pop(),
        lambda e: e["curves"]["classes"][0].pop("f1"),
        lambda e: e["errors"]["counts"].update(missed="many"),
        lambda e: e["by_image"].append(["a.jpg"]),
        lambda e: e["sizes"].update(small={"ap": "high", "instances": 3}),
    ],
)
def test_a_changed_evaluation_is_left_out(tmp_path: Path, change: Any) -> None:
    evaluation = evaluation_of(["cat", "dog"])
    change(evaluation)
    assert report_of(tmp_path / "train", evaluation).data["evaluation"] is None


@pytest.mark.parametrize(
    "text", ["", "!!", 3, None, base64.b64encode(b"<svg onload=alert(1)>").decode(), "A" * (1 << 21)]
)
def test_only_a_jpeg_is_shown_as_one(text: Any) -> None:
    assert checked_jpeg(text) is None


def test_an_image_that_is_no_jpeg_is_left_out_of_the_report(tmp_path: Path) -> None:
    evaluation = evaluation_of(["cat"])
    evaluation["samples"][0]["jpeg"] = base64.b64encode(b"<svg/>").decode()
    samples = report_of(tmp_path / "train", evaluation).data["evaluation"]["samples"]
    assert samples[0]["jpeg"] is None
    assert samples[1]["jpeg"].startswith("/9j/")


def test_a_run_of_many_epochs_is_thinned_to_its_shape() -> None:
    columns = metric_columns(
        [{"epoch": epoch, "a": float(epoch), "time": ""} for epoch in range(1, 10_001)], 2000
    )
    assert len(columns["epoch"]) == 2001
    assert (columns["epoch"][:2], columns["epoch"][-1]) == ([1, 6], 10_000)
    assert columns["a"][-1] == 10_000


def test_metrics_that_some_epochs_lack_are_gaps() -> None:
    assert metric_columns([{"epoch": 1}, {"epoch": 2, "val": 0.123456789}]) == {
        "epoch": [1, 2],
        "val": [None, 0.123457],
    }


def test_progress_bars_of_a_log_show_their_last_state() -> None:
    assert log_text("a\r\nb  0 %\rb 50 %\rb 99 %\r\n\x1b[1;31mred\x1b[0m\x07") == "a\nb 99 %\nred\\x07"


def test_the_command_writes_the_report_of_each_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(write_run(tmp_path / name)) for name in ("a", "b")]
    assert main(["report", *runs]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{run}/report.html" for run in runs]


def test_the_command_names_what_is_not_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 3
    assert "has no status.json; expected a folder that a training wrote" in capsys.readouterr().err
    assert main(["report"]) == 2
    assert main(["monitor", str(tmp_path / "nowhere")]) == 2
    assert main(["monitor", "a", "b"]) == 2


def test_a_report_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "train")
    (folder / "report.html").mkdir()
    with pytest.raises(DataError, match=r"report\.html: can't write the report"):
        write_report(folder)


def test_a_link_in_the_place_of_the_report_is_replaced(tmp_path: Path) -> None:
    folder, other = write_run(tmp_path / "train"), tmp_path / "other.txt"
    other.write_text("mine")
    (folder / "report.html").symlink_to(other)
    write_report(folder)
    assert other.read_text() == "mine"
