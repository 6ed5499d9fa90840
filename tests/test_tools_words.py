"""The check of words finds what the project doesn't write, and leaves ordinary English alone."""

from collections import Counter

import pytest

from tools import words
from tools.words import EXCEPTIONS, WORDS, Allowed, find_words


def names_found(text, path="docs/page.md"):
    return [hit.word.name for hit in find_words(path, text)]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("The figures are in a table", "figures"),
        ("epochs without a better figure", "figures"),
        ("BATCH_PICTURES = 3", "pictures, photos"),
        ("class BestPicture:", "pictures, photos"),
        ("train on drawn scenes", "drawn scenes"),
        ("class StandIn:", "stand-in"),
        ("class number -> name", "class number"),
        ("12 ms an image", "a batch, an image, an epoch"),
        ("Writes one line an epoch", "a batch, an image, an epoch"),
        ("stop after so many epochs", "so many"),
        ("pad to the least rectangle", "least rectangle"),
        ("least confidence of a detection", "least, most"),
        ("most detections in it", "least, most"),
        ("MOST_SIDE = 4096", "least, most"),
        ("a schedule of one's own", "of one's own"),
        ("Adam's kin get more", "Adam's kin"),
        ("rows = rows[:, how.max_det]", "how (of suppression)"),
        ("layers to hold fixed", "hold, held fixed"),
        ("with self.interrupts.held():", "held (signals)"),
        ("class rows are taken over by name", "take over"),
        ("the run goes on with its settings", "goes on"),
        ("the clock starts anew", "anew"),
        ("the batch in work", "in work"),
        ("nothing waits for the device", "waits for the device"),
        ("name_costly_callbacks", "costly"),
        ("each file is proved", "prove, proof"),
        ("def seal(file):", "seal"),
        ("foreign checkpoints", "foreign, peer, vendor"),
        ("OpenVINO makes programs", "programs (OpenVINO)"),
        ("def draw_chip(image):", "chip"),
        ("weights lie beside the file", "behind, beside, underneath"),
        ("what the file tells", "told, tells"),
        ("it is no YAML", "is no"),
    ],
)
def test_a_word_is_found_in_texts_and_in_names(text, name):
    assert names_found(text) == [name]


@pytest.mark.parametrize(
    "text",
    [
        "figure = Figure(figsize=(4, 3)) improves",
        "at least 4 and at most 16 images, most of them small, least squares",
        "A function of one argument; an image and a batch; Make an image",
        "there is no file, and it is no longer needed",
        "classes are told apart by colour, which tells this one from that",
        "see how it works: how often, how many",
        "callbacks that took over 1 % of the run",
        "nothing is left behind.",
        "a function that holds the lock",
        "the program reads a torch.export program",
    ],
)
def test_ordinary_english_is_left_alone(text):
    assert names_found(text) == []


def test_a_hit_has_its_line_and_a_file_name_is_line_0():
    hits = list(find_words("detector/data/pictures.py", "first\nwhat it tells\n"))
    assert [(hit.line, hit.found) for hit in hits] == [(0, "pictures"), (2, "tells")]


def test_some_words_are_looked_for_in_some_files_only():
    assert names_found("what is there goes", "detector/files/atomic.py") == []
    assert names_found("what is there goes", "docs/callbacks.md") == ["what is there (events)"]


def test_an_exception_covers_its_file_word_and_lines_and_is_counted(monkeypatch):
    exception = Allowed("docs/*", "chip", "my chip", "a processor")
    monkeypatch.setattr(words, "EXCEPTIONS", (exception,))
    used = Counter()
    hits = list(find_words("docs/export.md", "for my chip\na chip\nmy sheet, my chip\n", used))
    assert [(hit.line, hit.word.name) for hit in hits] == [(2, "chip"), (3, "sheet")]
    assert used[exception] == 2


def test_exceptions_name_words_of_the_list_and_have_reasons():
    assert len({word.name for word in WORDS}) == len(WORDS)
    for exception in EXCEPTIONS:
        assert exception.word in {"*", *(word.name for word in WORDS)}
        assert len(exception.reason) > 5


def test_the_exit_code_says_whether_there_was_a_hit(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(words, "ROOT", tmp_path)
    (tmp_path / "good.md").write_text("Images.\n")
    (tmp_path / "bad.md").write_text("Good.\nPhotos.\n")
    assert words.main(["good.md"]) == 0
    assert words.main(["good.md", "bad.md"]) == 1
    assert capsys.readouterr().out == "bad.md:2: 'Photos' -> images\n"
