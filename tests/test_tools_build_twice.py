from tools.build_twice import checksums, compare


def test_equal_builds_have_nothing_to_say(tmp_path):
    (tmp_path / "a.whl").write_bytes(b"abc")
    sums = checksums(tmp_path)
    assert sums == {"a.whl": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
    assert compare(sums, dict(sums)) == []


def test_a_file_that_differs_or_is_missing_is_named():
    here = {"a.whl": "11", "b.tar.gz": "22"}
    problems = compare(here, {"a.whl": "12", "c.tar.gz": "33"})
    assert [problem.partition(":")[0] for problem in problems] == ["a.whl", "b.tar.gz", "c.tar.gz"]
    assert problems[0].startswith("a.whl: 11 here, 12 from the last commit; commit or remove")
    assert "missing here" in problems[2]
