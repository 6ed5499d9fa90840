"""Find words that this project doesn't write, in texts, names and file names; run by `make words`.

The project speaks the field's English, so that a stranger can search for every word. `WORDS` says what not to
write and what to write instead; `EXCEPTIONS` names the places where one of them is right, each with its reason.
Every hit is printed as `file:line: word -> what to write`, and the exit code is 1 if there is any. A phrase that
is broken over two lines is not found.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = {".py", ".md", ".yaml", ".yml", ".toml", ".cff", ""}  # "": Makefile
NOT_READ = ("tools/words.py", "tests/test_tools_words.py", "LICENSE", "tests/vectors/*", ".ci/*")

COUNTED = (  # what a number is given of: "ms an image", "a line an epoch"
    r"(?:ms|s|px|MB|seconds?|minutes?|images|batches|detections|labels|boxes|rows?|lines?|bars?|epochs|steps|points"
    r"|anchors|bins|numbers?|files?|bytes|predictions?|sentences?|tables?|entr(?:y|ies)|names?|looks?|call|cores?"
    r"|one|operations|scores?|columns?|threads?|process|readers?)"
)
PER = r"(?:image|batch|epoch|picture|step|side|class|box|layer|row|cell|second|run|event|format|key|setting|engine)"


class Word(NamedTuple):
    """A word or phrase not to write.

    Attributes:
        name: for people, and for `EXCEPTIONS`.
        pattern: what is searched for, ignoring case, between characters that are no letters. Names are split
            at capitals first: `StandIn` is read as "Stand In".
        instead: what to write.
        only: globs of the files it is not written in; others may.
    """

    name: str
    pattern: str
    instead: str
    only: tuple[str, ...] = ("*",)


WORDS = (
    # data and metrics
    Word("figures", r"figures|(?:better|without a|no such|same|first) figure", "metrics; plots"),
    Word("pictures, photos", r"pictures?|photos?", "images"),
    Word("drawn scenes", r"drawn (?:scenes?|images?|pictures?|data[- ]?sets?)", "synthetic images"),
    Word("stand-in", r"stand[- ]ins?|stand_ins|stands? in for", "placeholder data; unpickled placeholder"),
    Word("class number", r"class[ _]numbers?", "class id"),
    Word(
        "a batch, an image, an epoch",
        rf"{COUNTED} an? {PER}(?! of)",
        "per batch, per image, per epoch",
    ),
    Word("so many", r"so many(?! that)", "n (n epochs)"),
    # settings
    Word("least rectangle", r"least rectangles?", "minimal padding (rect)"),
    Word(
        "least, most",
        r"(?<!at )least(?! squares| rectangle)|(?<!at )(?<!the )most (?:IoU|detections|anchors?|bytes|boxes|images|rows"
        r"|cells|files|px|pairs)|(?-i:MOST_[A-Z]+)|most(?= ?[=\]}])|(?<=<= )most",
        "minimum, maximum",
    ),
    Word("of one's own", r"(?:one's|of your) own", "custom"),
    Word("Adam's kin", r"kin", "Adam variants"),
    Word(
        "how (of suppression)",
        r"how\.[a-z]\w*|how: [A-Z]\w*|how is (?:not )?None|(?<=, )how\)|(?<=\()how(?=[,)])|how=",
        "nms",
    ),
    # the run
    Word("hold, held fixed", r"h(?:old|olds|eld|olding)\b[^.;\n]{0,30}\bfixed", "freeze, frozen"),
    Word("held (signals)", r"held(?=\(|`| block)", "deferred"),
    Word("take over", r"t(?:ake|akes|ook|aken|aking)[ _-]over(?! \d| a share)", "restore, inherit, load"),
    Word("goes on", r"(?:go|goes|going|went) on", "resumes, continues"),
    Word("anew", r"anew", "again, from scratch"),
    Word("wind up", r"wind(?:s|ing)?[ _]up|wound[ _]up", "teardown"),
    Word("rescue", r"rescue[sd]?", "save on exception"),
    Word("guard", r"guards?", "non-finite check", only=("detector/*", "docs/*", "cfg/*")),
    Word("boundary", r"boundar(?:y|ies)", "end-of-epoch state"),
    Word("begin sums", r"begin[ _]sums", "reset meters"),
    Word("in work", r"in work", "the current batch"),
    Word("waits for the device", r"wait(?:s|ing)? for the (?:device|GPU)", "synchronises with the device"),
    # callbacks
    Word("costly", r"costly", "slow"),
    Word(
        "what is there (events)",
        r"what is there",
        "available attributes",
        only=("detector/callbacks/*", "detector/reference.py", "docs/callbacks.md", "tests/test_callbacks*"),
    ),
    # files and export
    Word("prove, proof", r"(?:un)?prove[sdn]?|(?:un)?proven|proving|proofs?", "verify, verified, parity check"),
    Word("seal", r"(?:un)?seal(?:s|ed|ing)?", "checksum"),
    Word(
        "foreign, peer, vendor",
        r"foreign(?! scripts?| keys?)|peers?|vendors?",
        "ultralytics checkpoint, published weights",
    ),
    Word(
        "programs (OpenVINO)",
        r"programs? of (?:its|their) own|programs of the input shapes|OpenVINO\b.{0,60}\bprograms?",
        "compiled models",
    ),
    Word("programs (OpenVINO's files)", r"programs?", "compiled models", only=("*openvino*",)),
    # drawing
    Word("chip", r"chips?", "label background"),
    Word("sheet", r"sheets?", "image grid"),
    # phrases
    Word("behind, beside, underneath", r"behind(?![.,]| one )|beside|underneath", "after, next to, overridden by"),
    Word(
        "told, tells",
        r"told(?! apart)|tells(?! .{0,60}\b(?:apart|from)\b)|tell whether",
        "reported, known from, returns",
    ),
    Word(
        "is no",
        r"(?<!there )(?:is|are) no(?= )(?! (?:longer|more|less|better|worse|matter|other|such|need|one)\b)",
        "is not a",
    ),
)  # fmt: skip


class Allowed(NamedTuple):
    """Where a word is right.

    Attributes:
        files: glob of paths from the repository's root.
        word: name of the entry of `WORDS`.
        lines: pattern that the line must contain; empty for all lines.
        reason: why.
    """

    files: str
    word: str
    lines: str
    reason: str


EXCEPTIONS = (
    Allowed("benchmarks/*", "foreign, peer, vendor", "", "the other program of a comparison, option --peer"),
    Allowed("tests/test_benchmarks.py", "foreign, peer, vendor", "", "the other program of a comparison"),
    Allowed(
        "tests/support/two_machines.py", "foreign, peer, vendor", "peer name", "an option of `ip link add`"
    ),
    Allowed("Makefile", "foreign, peer, vendor", "PEER", "option --peer of the benchmarks"),
    Allowed("docs/benchmarks.md", "foreign, peer, vendor", "", "the other program of a comparison"),
    Allowed("docs/small-data.md", "foreign, peer, vendor", "peer", "option --peer of the benchmarks"),
    Allowed("docs/resume.md", "foreign, peer, vendor", "peer", "the folder of another program's environment"),
    Allowed("docs/export.md", "foreign, peer, vendor", "against-a-peer", "link to a comparison"),
    Allowed("docs/export.md", "chip", "my[ _]chip", "a processor"),
    Allowed("*", "pictures, photos", r"\bPictures\b", "a public class"),
    Allowed("*", "pictures, photos", r"pictures/", "where loggers show the images of a run"),
    Allowed("*", "pictures, photos", r"[\"']pictures[\"']", "a key in the metadata of exported files"),
    Allowed("*", "seal", r"sealed", "a key in files of earlier versions"),
    Allowed("*", "stand-in", r"-drawn-stand-in", "the folder of a placeholder data set"),
    Allowed("CONTRIBUTING.md", "*", r"\| .* \| .* \|", "the short form of this list"),
)


class Hit(NamedTuple):
    """One place where a word stands: line 0 is the file's name."""

    path: str
    line: int
    found: str
    word: Word


def compiled(word: Word) -> re.Pattern[str]:
    """Return the pattern of a word, between characters that are no letters."""
    return re.compile(rf"(?<![A-Za-z])(?:{word.pattern})(?![A-Za-z])", re.IGNORECASE)


PATTERNS = {word.name: compiled(word) for word in WORDS}


def split_names(text: str) -> str:
    """Split names at capitals: `StandIn` is "Stand In", and underscores stay."""
    return re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", text)


def is_allowed(path: str, word: Word, line: str, used: Counter[Allowed]) -> bool:
    """Return whether an exception covers a hit, and count it."""
    for exception in EXCEPTIONS:
        fits = fnmatch(path, exception.files) and exception.word in ("*", word.name)
        if fits and re.search(exception.lines, line):
            used[exception] += 1
            return True
    return False


def find_words(path: str, text: str, used: Counter[Allowed] | None = None) -> Iterator[Hit]:
    """Find the words of one file.

    Args:
        path: from the repository's root; is searched as well.
        text: what is in the file.
        used: counts the exceptions that were needed.
    """
    used = Counter() if used is None else used
    words = [word for word in WORDS if any(fnmatch(path, glob) for glob in word.only)]
    named = split_names(f"{path}\n{text}")
    lines = named.split("\n")
    hits = [
        (named.count("\n", 0, match.start()), match[0], word)
        for word in words
        for match in PATTERNS[word.name].finditer(named)
    ]
    for number, found, word in sorted(hits, key=lambda hit: hit[0]):
        if not is_allowed(path, word, lines[number], used):
            yield Hit(path, number, found, word)


def tracked_files() -> list[str]:
    """Return the repository's own texts: what git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return sorted(
        path
        for path in set(listed)
        if (ROOT / path).is_file()
        and Path(path).suffix in SUFFIXES
        and not any(fnmatch(path, glob) for glob in NOT_READ)
    )


def main(arguments: Iterable[str]) -> int:
    """Check the files that are named, or all; with `--count` print how often each word was found."""
    arguments = list(arguments)
    count = "--count" in arguments
    paths = [path for path in arguments if path != "--count"]
    used: Counter[Allowed] = Counter()
    hits = [
        hit
        for path in paths or tracked_files()
        for hit in find_words(path, (ROOT / path).read_text(encoding="utf-8"), used)
    ]
    if count:
        for name, number in Counter(hit.word.name for hit in hits).most_common():
            print(f"{number:5} {name}")
    else:
        for hit in hits:
            print(f"{hit.path}:{hit.line}: {hit.found!r} -> {hit.word.instead}")
    unused = [] if paths else [exception for exception in EXCEPTIONS if not used[exception]]
    for exception in unused:
        print(f"tools/words.py: no longer needed: {exception}; remove it")
    print(f"{len(hits)} words to replace, {len(unused)} exceptions to remove", file=sys.stderr)
    return 1 if hits or unused else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
