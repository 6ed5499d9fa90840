"""Both pages in a Chromium, as people use them: `make browser`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from support.evaluations import evaluation_of
from support.runs import row_of, status_of, write_run

from detector.pages.report import write_report
from detector.pages.server import MonitorServer

pytestmark = pytest.mark.browser

EVIL = "<script>document.title='owned'</script><img src=x onerror=document.title='owned'>"
SIZES = pytest.mark.parametrize(
    ("width", "scheme"), [(1280, "light"), (390, "dark"), (390, "light"), (1280, "dark")]
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        program = shutil.which(os.environ.get("CHROMIUM", "chromium"))
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A page that fails the test if it says anything in its console, or is refused anything."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type != "log" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: dialog.accept())
    yield page
    context.close()
    assert said == []


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    write_run(folder / "first", 20, settings={"lr0": 0.01})
    write_run(
        folder / "second",
        20,
        settings={"lr0": 0.02},
        offset=0.05,
        state="running",
        ended=None,
        stop_reason=None,
    )
    (folder / "first/evaluation.json").write_text(json.dumps(evaluation_of(["cat", "dog", "bird"])))
    return folder


@pytest.fixture
def url(runs: Path) -> Iterator[str]:
    with MonitorServer(runs, port=0) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.url
        server.shutdown()
        thread.join()


def report(tmp_path: Path, names: list[str], **run: Any) -> str:
    folder = write_run(tmp_path / "train", 20, **run)
    (folder / "evaluation.json").write_text(json.dumps(evaluation_of(names)))
    return write_report(folder).as_uri()


def wait(page: Any, text: str, selector: str = "body") -> None:
    page.wait_for_function(
        "([s, t]) => document.querySelector(s)?.textContent.includes(t)", arg=[selector, text]
    )


def names_in(page: Any, table: str) -> list[str]:
    return [text.lstrip("☆★") for text in page.locator(f"{table} tbody th").all_text_contents()]


@SIZES
def test_the_report_fits_its_window_in_both_schemes(
    page: Any, tmp_path: Path, width: int, scheme: str
) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    page.goto(report(tmp_path, [f"class {number}" for number in range(80)]))
    wait(page, "Confusion matrix")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("svg.chart").count() >= 8
    assert page.locator("section .problem").count() == 0
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 28)"
    assert dark == (scheme == "dark")


def test_the_table_of_classes_sorts_by_mouse_and_keyboard(page: Any, tmp_path: Path) -> None:
    page.goto(report(tmp_path, ["cat", "dog", "bird"]))
    button = page.locator("#classes thead th[data-key=ap] button")
    button.click()
    values = [float(text) for text in page.locator("#classes tbody td:last-child").all_text_contents()]
    assert values == sorted(values, reverse=True)
    button.press("Enter")
    assert page.locator("#classes th[data-key=ap]").get_attribute("aria-sort") == "ascending"
    page.locator("#classes th[data-key=name] button").click()
    assert names_in(page, "#classes table") == ["bird", "cat", "dog"]
    page.locator("#classes input").fill("do")
    assert names_in(page, "#classes table") == ["dog"]


def test_the_threshold_changes_counts_and_boxes(page: Any, tmp_path: Path) -> None:
    page.goto(report(tmp_path, ["cat", "dog"]))
    rows = "#errors tbody >> nth=0 >> tr"
    page.locator("#threshold").fill("0.05")
    low = page.locator(rows).nth(0).locator("td").first.text_content()
    assert page.locator("#errors figure rect").count() > 20
    page.locator("#threshold").fill("0.99")
    assert int(page.locator(rows).nth(0).locator("td").first.text_content()) < int(low)
    assert "missed" in page.locator("#errors figcaption").first.text_content()


def test_a_chart_zooms_reads_values_and_hides_series(page: Any, tmp_path: Path) -> None:
    page.goto(report(tmp_path, ["cat"]))
    card = page.locator("#curves .card").first
    chart = card.locator("svg.chart")
    chart.focus()
    page.keyboard.press("ArrowRight")
    assert card.locator(".tip").text_content().startswith("epoch 1: mAP50 ")
    page.keyboard.press("+")
    assert card.get_by_role("button", name="whole").is_visible()
    page.keyboard.press("0")
    assert not card.get_by_role("button", name="whole").is_visible()
    box = chart.bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 80)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 90)
    page.mouse.up()
    assert card.get_by_role("button", name="whole").is_visible()
    paths = chart.locator("path").count()
    card.locator(".legend button").first.click()
    assert chart.locator("path").count() == paths - 1
    assert "line chart" in chart.get_attribute("aria-label")


def test_hostile_names_stay_text(page: Any, tmp_path: Path) -> None:
    page.goto(report(tmp_path, [EVIL, "\x1b[31m"], settings={EVIL: EVIL}, error=EVIL, command=EVIL))
    wait(page, EVIL, "#summary")
    wait(page, EVIL[:40], "#classes")
    assert page.title() == "train – report"
    assert page.locator("main img, main script").count() == 0


def test_the_list_sorts_compares_and_shows_what_differs(page: Any, url: str) -> None:
    page.goto(url)
    wait(page, "second", "#runs table")
    page.locator("#runs th[data-key='mAP50'] button").click()
    assert names_in(page, "#runs table") == ["second", "first"]
    page.get_by_role("button", name="what differs").click()
    wait(page, "0.02", "#runs table")
    assert "lr0" in page.locator("#runs thead").text_content()
    assert "epochs" not in page.locator("#runs thead").text_content()
    wait(page, "first: mAP50", "#curves")
    page.get_by_label("show the curves of first").uncheck()
    page.wait_for_function("() => !document.querySelector('#curves').textContent.includes('first')")
    page.get_by_label("filter runs").fill("lr0=0.01")
    assert names_in(page, "#runs table") == ["first"]


def test_a_run_is_watched_live_and_stopped(page: Any, url: str, runs: Path) -> None:
    page.goto(f"{url}#run/second")
    wait(page, "mAP50", "#panel-curves")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with (runs / "second/metrics.jsonl").open("a") as file:
        file.write(json.dumps(row_of(21, 40)) + "\n")
    (runs / "second/status.json").write_text(json.dumps(status_of(40, state="running", epoch=21, ended=None)))
    wait(page, "21 of 40")
    page.wait_for_function(
        "() => document.querySelector('svg.chart').getAttribute('aria-label').includes('at 21')"
    )
    offsets = [int(part.split("offset=")[1].split("&")[0]) for part in asked if "/api/metrics" in part]
    assert offsets
    assert min(offsets) > 0  # what it had was not sent again
    page.get_by_role("tab", name="Log").click()
    wait(page, "epoch 20/20", "#panel-log")
    with (runs / "second/train.log").open("a") as file:
        file.write("epoch 21/40\n")
    wait(page, "epoch 21/40", "#panel-log")
    page.get_by_role("button", name="Stop", exact=True).click()
    wait(page, "stopping")
    assert (runs / "second/STOP").is_file()


def test_a_note_and_a_star_are_kept(page: Any, url: str, runs: Path) -> None:
    page.goto(f"{url}#run/first")
    page.get_by_label("note", exact=True).fill(EVIL)
    page.get_by_role("button", name="save note").click()
    page.get_by_role("button", name="saved").wait_for()
    page.get_by_label("star of first").click()
    page.wait_for_timeout(300)
    assert json.loads((runs / "first/note.json").read_text()) == {"note": EVIL, "star": True}
    page.goto(url)
    wait(page, EVIL, "#runs")
    assert page.title() == "runs – detector"


def test_the_validation_of_a_run_is_there_with_its_images(page: Any, url: str) -> None:
    page.goto(f"{url}#run/first")
    page.get_by_role("tab", name="Validation").click()
    wait(page, "Images with the most errors")
    assert page.locator("#errors figure image").count() > 0
    cell = page.locator(".matrix td[tabindex='0']")
    cell.focus()
    page.keyboard.press("ArrowDown")
    wait(page, "predicted dog, truly cat")


def test_every_control_has_a_name(page: Any, url: str, tmp_path: Path) -> None:
    for address in (url, f"{url}#run/first", report(tmp_path, ["cat", "dog"])):
        page.goto(address)
        page.locator("svg.chart").first.wait_for()
        unnamed = page.evaluate(
            "[...document.querySelectorAll('button, input, select, textarea, svg[role=img]')].filter((e) => "
            "!(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).map((e) => e.outerHTML)"
        )
        assert unnamed == []


@SIZES
def test_the_live_page_fits_its_window(page: Any, url: str, width: int, scheme: str) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    for part in ("", "#run/first"):
        page.goto(f"{url}{part}")
        page.locator("svg.chart").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert "null" not in page.locator("body").inner_text()
