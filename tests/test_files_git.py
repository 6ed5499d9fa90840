import os
import shutil
import subprocess

import pytest

from detector.files.git import describe_commit

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git to make a work tree")


@pytest.fixture
def git(tmp_path, monkeypatch):
    """A work tree with one commit of two files: a function that runs git in it."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    tree = tmp_path / "tree"
    tree.mkdir()

    def git(*words, folder=tree):
        who = ("-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "protocol.file.allow=always")
        return subprocess.run(
            ["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-q", "-b", "main")
    (tree / "deep/er").mkdir(parents=True)
    (tree / "a.py").write_text("a = 1\n")
    (tree / "deep/er/ä.txt").write_text("text")
    (tree / "link").symlink_to("a.py")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    git.tree = tree
    return git


def test_the_commit_of_a_folder_within_the_tree(git):
    assert describe_commit(git.tree / "deep/er") == {"commit": git("rev-parse", "HEAD"), "dirty": False}


def test_a_folder_outside_has_none(tmp_path):
    assert describe_commit(tmp_path) is None


def test_a_tree_without_a_commit_has_none(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path / "new"], check=True)
    assert describe_commit(tmp_path / "new") is None


@pytest.mark.parametrize("way", ["edit", "same size", "remove", "add", "add a new one", "turn the link"])
def test_changed_files_make_it_dirty(git, way):
    path = git.tree / "a.py"
    if way == "edit":
        path.write_text("a = 12\n")
    elif way == "same size":
        path.write_text("a = 2\n")
    elif way == "remove":
        path.unlink()
    elif way == "add":
        path.write_text("a = 12\n")
        git("add", ".")
    elif way == "add a new one":
        (git.tree / "b.py").touch()
        git("add", ".")
    else:
        (git.tree / "link").unlink()
        (git.tree / "link").symlink_to("deep")
    assert describe_commit(git.tree)["dirty"] is True
    assert git("status", "--porcelain") != ""
    git("add", ".")
    git("commit", "-q", "-m", "second")
    assert describe_commit(git.tree) == {"commit": git("rev-parse", "HEAD"), "dirty": False}


def test_a_file_that_was_only_touched_or_is_new_does_not(git):
    os.utime(git.tree / "a.py", (1, 1))
    (git.tree / "new.py").touch()
    assert describe_commit(git.tree)["dirty"] is False


def test_packed_branches_detached_heads_linked_trees_and_submodules_are_read(git, tmp_path):
    head = git("rev-parse", "HEAD")
    git("pack-refs", "--all")
    assert not (git.tree / ".git/refs/heads/main").exists()
    assert describe_commit(git.tree)["commit"] == head
    git("worktree", "add", "-q", "-b", "other", tmp_path / "linked")
    (tmp_path / "linked/b.py").touch()
    git("add", ".", folder=tmp_path / "linked")
    git("commit", "-q", "-m", "other", folder=tmp_path / "linked")
    other = git("rev-parse", "other")
    assert describe_commit(tmp_path / "linked") == {"commit": other, "dirty": False} and other != head
    git("submodule", "add", "-q", str(tmp_path / "linked"), "sub")
    assert describe_commit(git.tree / "sub")["commit"] == other
    git("checkout", "-q", "--detach")
    assert describe_commit(git.tree)["commit"] == head


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("HEAD", b"ref: ../../../etc/passwd\n"),
        ("HEAD", b"ref: refs/heads/../../../x\n"),
        ("HEAD", b"\xff\xfe"),
        ("HEAD", b"x" * 100_000),
        ("HEAD", b""),
        ("refs/heads/main", b"not a commit\n"),
    ],
)
def test_what_git_does_not_write_is_no_commit(git, name, content):
    (git.tree / ".git" / name).write_bytes(content)
    assert describe_commit(git.tree) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"DIRC\0\0\0\x04\0\0\0\x01",
        b"DIRC\0\0\0\x02\xff\xff\xff\xff",
        b"DIRC\0\0\0\x02\0\0\0\x09short",
        b"DIRC\0\0\0\x02\0\0\0\x01" + b"\1" * 200,
    ],
)
def test_of_an_index_that_is_not_read_nothing_is_said(git, content):
    (git.tree / ".git/index").write_bytes(content)
    assert describe_commit(git.tree)["dirty"] is None
