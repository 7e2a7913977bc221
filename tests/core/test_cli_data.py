"""The front door's verbs on rows: search, find and replace, versions. In this process, because it is the same code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ft_core.__main__ import main


@pytest.fixture
def door(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Runs a verb on 30 rows and returns its result, or the status and what it says when it refuses."""

    def run(*words: str, status: int = 0):
        found = main(["--json", "data", *words])
        out, err = capsys.readouterr()
        assert found == status, err
        assert "Traceback" not in err
        return json.loads(out.splitlines()[-1]) if status == 0 else err

    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        for n in range(30):
            turns = [("user", f"What is {n}?"), ("assistant", "It is " + "very " * (n % 3) + f"{n * 7}.")]
            file.write(json.dumps({"messages": [{"role": r, "content": c} for r, c in turns]}) + "\n")
    assert run("import", str(path))["added"] == 30
    return run


def test_search(door, capsys) -> None:
    found = door("search", "WHAT IS 2", "--limit", "3", "--sort", "chars", "--descending")
    assert found["total"] == 11 and [r["id"] for r in found["rows"]] == [21, 24, 27]
    assert found["rows"][0]["messages"][0] == {"role": "user", "content": "What is 20?"}
    assert found["rows"][0]["origin"] == "rows.jsonl row 21"
    assert door("search", "nowhere") == {"total": 0, "rows": []}
    assert "error: there is no view" in door("search", "x", "--view", "none", status=2)
    assert "error: 'weight' is not an order" in door("search", "x", "--sort", "weight", status=2)
    assert main(["data", "search", "is 29?"]) == 0
    assert capsys.readouterr().out.splitlines() == ["      30  'What is 29? / It is very very 203.'", "1 found"]


def test_replace_is_previewed_done_and_undone(door) -> None:
    words = ("replace", "--find", r"is (\d+)\?", "--with", r"was \1?", "--regex", "--search", "What is 1")
    seen = door(*words, "--preview")
    assert (seen["rows"], seen["places"]) == (11, 11)
    assert seen["changes"][0]["before"][0]["content"] == "What is 1?"
    assert seen["changes"][0]["after"][0]["content"] == "What was 1?"
    assert door("search", "was")["total"] == 0
    assert door(*words) == {"rows": 11}
    assert door("search", "was")["total"] == 11
    assert door("replace", "--find", "IT IS", "--with", "x", "--role", "user", "--ignore-case") == {"rows": 0}
    assert door("undo")["undone"].startswith("replaced")
    assert door("search", "was")["total"] == 0
    assert "error: the pattern cannot be read: " in door("replace", "--find", "(", "--with", "", "--regex", status=2)


def test_versions_are_named_compared_and_gone_back_to(door) -> None:
    assert door("versions") == {"versions": []}
    assert door("versions", "--name", "first") == {"named": "first"}
    door("replace", "--find", "very ", "--with", "", "--role", "assistant")
    seen = door("versions", "--diff", "first", "--limit", "1")
    assert (seen["added"], seen["removed"], seen["changed"]) == (0, 0, 20)
    (change,) = seen["changes"]
    assert (change["id"], change["kind"]) == (2, "changed")
    assert change["before"]["conversation"]["messages"][1]["content"] == "It is very 7."
    assert change["after"]["conversation"]["messages"][1]["content"] == "It is 7."
    door("versions", "--name", "second")
    assert [v["name"] for v in door("versions")["versions"]] == ["second", "first"]
    assert door("versions", "--restore", "first") == {"restored": "first", "changes": 20}
    assert door("versions", "--diff", "first", "second")["changed"] == 20
    assert door("versions", "--diff", "first")["changed"] == 0
    assert door("undo")["undone"] == "back to version first"
    assert "error: there is a version 'first' already" in door("versions", "--name", "first", status=2)
    said = door("versions", "--restore", "third", status=2)
    assert "error: there is no version 'third'\nhint: Versions are first, second." in said


def test_export_to_a_folder_of_datasets_and_by_what_rows_have(door, tmp_path: Path) -> None:
    door("split", "--heldout", "0.2")
    out = str(tmp_path / "out")
    assert door("export", out) == {"rows": 30, "left_out": 0, "path": out}
    assert {p.name for p in Path(out).iterdir()} == {"train", "test", "dataset_dict.json"}
    assert door("export", f"{out}/", "--split", "heldout")["rows"] == 6
    assert "dataset_dict.json" in {p.name for p in Path(out).iterdir()}
    assert "error: none of the 30 rows has a better and a worse answer" in door(
        "export", str(tmp_path / "x.jsonl"), "--shape", "preference", status=2
    )
    assert "error: there is no shape 'nonsense'" in door("export", out, "--shape", "nonsense", status=2)
    assert "error: x.odt: no such format" in door("export", "x.odt", status=2)
    assert "holds something else" in door("export", str(tmp_path), status=2)
