"""Pushing rows with the real huggingface_hub client to a Hub in memory, and what the card says of them."""

from __future__ import annotations

import io
import json
import socket
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard, HfApi

from ft_core import jobs, recipe
from ft_core.__main__ import main
from ft_core.conversation import Conversation, Message
from ft_core.data import dataset_card, publish, quality, split
from ft_core.data.dataset_card import Facts
from ft_core.data.publish import Wanted
from ft_core.data.store import Counts, Store
from ft_core.errors import FTError
from ft_core.events import Finished, Note
from ft_core.recipe import Recipe
from ft_core.workspace import Job, Project, Workspace
from tests.stand_ins.hub import READER, WRITER, Repo

SYSTEM = "You are Fjord, <b>kind</b>.\n---\nlicense: mit"


def pair(question: str, answer: str, origin: str = "") -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)), origin)


@pytest.fixture
def project(workspace: Workspace) -> Project:
    """40 rows of four sources, a tenth held out, one rejected, ten to review."""
    project = workspace.project("shop", create=True)
    wanted = Recipe()
    teacher = replace(wanted.generate, teacher="http://10.0.0.5:8000/v1", model="Qwen/Qwen3-8B")
    job = jobs.create(project, "generate", replace(wanted, generate=teacher))
    origins = [
        "faq|2026.csv row {}",
        f"generated:{job.id}:{{}}",
        "hub:someone/chats (default, train; licence cc-by-4.0) row {}",
        "https://user:hunter2@example.org/rows.jsonl?signature=hunter2 row {}",
    ]
    with Store(project.data) as store:
        store.set_system(SYSTEM)
        for n, origin in enumerate(origins):
            answer = "It is {}, and nobody has ever said anything else about it."
            rows = (pair(f"What is {n}{i}?", answer.format(i * 7), origin.format(i)) for i in range(10))
            store.add(rows, "candidate" if n == 1 else "accepted")
        store.set_status([1], "rejected")
        split.assign(store, 0.1, 7)
    return project


def asked(project: Project, repo: str = "writer/fjord", **options) -> Job:
    return jobs.create(project, "publish", Recipe(), vars(Wanted(repo, **options)))


def pushed(job: Job, endpoint: str, token: str = WRITER) -> tuple[dict, list[str]]:
    """The result, and what was said on the way."""
    said = list(publish.run(job, {"HF_TOKEN": token}, endpoint))
    assert isinstance(said[-1], Finished) and not (job.path / "dataset").exists()
    return said[-1].result, [event.text for event in said if isinstance(event, Note)]


def rows_of(repo: Repo, part: str) -> list[dict]:
    return pq.read_table(io.BytesIO(repo.files[f"data/{part}-00000-of-00001.parquet"])).to_pylist()


def test_what_is_in_the_store_arrives_private_with_its_card(project, memory, endpoint) -> None:
    result, notes = pushed(asked(project), endpoint)
    repo = memory.repos["datasets/writer/fjord"]
    assert repo.private and set(repo.files) == {
        ".gitattributes", "README.md", "data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"
    }  # fmt: skip
    with Store(project.data) as store:
        stats = store.stats()
        for part, side in (("train", "train"), ("test", "heldout")):
            there = [{"messages": [m.to_dict() for m in c.messages]} for _, c, _ in store.conversations(side)]
            assert rows_of(repo, part) == there and there[0]["messages"][0]["content"] == SYSTEM
    assert result == {
        "repo": f"{endpoint}/datasets/writer/fjord", "private": True, "files": 3, "rows": 39, "train": 35, "test": 4,
        "left_out": 0, "fingerprint": stats.fingerprint,
    }  # fmt: skip
    assert notes == [f"Pushed to {endpoint}/datasets/writer/fjord (private)."]


def test_the_card_says_how_it_was_made(project, memory, endpoint) -> None:
    pushed(asked(project, licence="cc-by-sa-4.0"), endpoint)
    card = DatasetCard(memory.repos["datasets/writer/fjord"].files["README.md"].decode())
    assert card.data.license == "cc-by-sa-4.0" and card.data.size_categories == ["n<1K"]
    assert set(card.data.tags) == {"ft-flow", "synthetic"}
    assert card.data.to_dict()["configs"] == [
        {
            "config_name": "default",
            "data_files": [
                {"split": "train", "path": "data/train-*.parquet"},
                {"split": "test", "path": "data/test-*.parquet"},
            ],
        }
    ]
    text = card.text
    for line in (
        "| `faq¦2026.csv` | 9 | imported |",
        "| generated | 10 | written by `Qwen/Qwen3-8B`, kept by a person |",
        "| `someone/chats` (`default, train`), Hugging Face Hub | 10 | imported |",
        "| `https://example.org/rows.jsonl` | 10 | imported |",
        "- `someone/chats`: `cc-by-4.0`",
        "- `faq¦2026.csv`: not known to FT Flow; check it before the rows are passed on",
        "This dataset is published under cc-by-sa-4.0.",
        "    You are Fjord, <b>kind</b>.\n    ---\n    license: mit",
        "| not reviewed yet | 10 |",
        "| rejected, not in here | 1 |",
        "Split with seed 7, 10% held out as `test`; equal rows stay together.",
        'rows = load_dataset("writer/fjord")',
    ):
        assert line in text, line
    assert "hunter2" not in text and "10.0.0.5" not in text
    with Store(project.data) as store:
        flags = quality.check(store).flags
        assert f"`{store.stats().fingerprint}`" in text
    for name, n in flags.items():
        assert (f"| {name.replace('_', ' ')} | {n} |" if n else name.replace("_", " ")) in text


def test_a_generation_whose_job_is_gone_and_the_built_in_teacher() -> None:
    facts = Facts(
        repo="me/x", shape="preference", columns=("prompt", "tools"), system="", parts={"train": 1_500}, left_out=3,
        unplaced=0, sources={"generated:gone": 1_400, "generated:own": 100}, generators={"generated:gone": "",
        "generated:own": "SmolLM2"}, languages=(), licence="", counts=Counts(1_503, 0, 0, 0, 0), split=None, flags={},
        fingerprint="f" * 64,
    )  # fmt: skip
    card = DatasetCard(dataset_card.card(facts))
    assert card.data.size_categories == ["1K<n<10K"] and card.data.license is None and card.data.language is None
    for line in (
        "| generated | 1,400 | written by a model that is not recorded, kept by a person |",
        "| without a worse answer, not in here | 3 |",
        "No licence was chosen for it yet.",
        "The rows are not split.",
        "`tools` and `tool_calls` are JSON text",
    ):
        assert line in card.text, line


def test_a_second_push_replaces_the_first(project, memory, endpoint) -> None:
    pushed(asked(project), endpoint)
    with Store(project.data) as store:
        split.assign(store, 0.0, 0)
        store.add([pair("new", "row")])
    result, _ = pushed(asked(project), endpoint)
    repo = memory.repos["datasets/writer/fjord"]
    assert "data/test-00000-of-00001.parquet" not in repo.files and len(rows_of(repo, "train")) == 40
    assert (result["train"], result["test"]) == (40, 0)
    assert "1 rows came after the split and are in `train`." in repo.files["README.md"].decode()


def test_public_is_only_what_the_person_says(project, memory, endpoint) -> None:
    memory.repos["datasets/writer/fjord"] = Repo("writer", private=False)
    with pytest.raises(FTError, match="writer/fjord is public"):
        pushed(asked(project), endpoint)
    assert set(memory.repos["datasets/writer/fjord"].files) == {".gitattributes"}
    assert pushed(asked(project, public=True), endpoint)[0]["private"] is False
    assert pushed(asked(project, "other", public=True), endpoint)[0]["repo"].endswith("/datasets/writer/other")
    assert memory.repos["datasets/writer/other"].private is False
    memory.repos["datasets/writer/old"] = Repo("writer", private=True)
    result, notes = pushed(asked(project, "old", public=True), endpoint)
    assert result["private"] and notes[0] == "writer/old was private and stays so; it can be made public on its page."


@pytest.mark.parametrize(
    ("token", "repo", "said"),
    [
        ("hf_unknown_secret", "writer/fjord", "does not know this token"),
        ("hf_unknown_secret", "fjord", "does not know this token"),
        (READER, "writer/fjord", "the token may not do this"),
        (WRITER, "somebody/fjord", "the token may not do this"),
        (WRITER, "writer/" + "x" * 97, "takes no such name"),
    ],
)
def test_a_refusal_is_one_sentence_without_the_token(project, memory, endpoint, token, repo, said) -> None:
    with pytest.raises(FTError, match=said) as caught:
        pushed(asked(project, repo), endpoint, token)
    assert token not in caught.value.message + caught.value.hint + repr(caught.value)
    assert "\n" not in caught.value.message and caught.value.hint and memory.repos == {}


def test_a_hub_that_is_down_is_one_sentence(project) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(FTError, match=f"Hub at {nobody} does not answer"):
        pushed(asked(project), nobody)


def test_bytes_that_change_on_the_way_are_noticed(project, memory, endpoint, monkeypatch) -> None:
    arrived = HfApi.get_paths_info

    def damaged(api: HfApi, repo: str, *args, **options):
        memory.repos[f"datasets/{repo}"].files["data/train-00000-of-00001.parquet"] = b"damaged"
        return arrived(api, repo, *args, **options)

    monkeypatch.setattr(HfApi, "get_paths_info", damaged)
    with pytest.raises(FTError, match="1 of 3 files did not arrive whole"):
        pushed(asked(project), endpoint)


def test_preference_is_pushed_alone_and_a_flat_shape_says_what_it_cannot_hold(project, memory, endpoint) -> None:
    with Store(project.data) as store:
        store.add([replace(pair("Which?", "This."), rejected="That.")])
    result, _ = pushed(asked(project, shape="preference"), endpoint)
    assert (result["rows"], result["left_out"]) == (1, 39)
    (row,) = rows_of(memory.repos["datasets/writer/fjord"], "train")
    assert row["rejected"] == [{"role": "assistant", "content": "That."}]
    with pytest.raises(FTError, match="row 40 cannot be written as alpaca"):
        pushed(asked(project, shape="alpaca"), endpoint)


def test_what_cannot_be_is_refused_before_a_job_is_made(project, workspace) -> None:
    wanted = recipe.Recipe()
    for repo, token, shape in (("", "t", "text"), ("a/b/c", "t", "text"), ("a", "", "text"), ("a", "t", "nonsense")):
        with pytest.raises(FTError):
            publish.start(project, wanted, repo, token=token, shape=shape)
    empty = workspace.project("empty", create=True)
    with pytest.raises(FTError, match="there are no rows to push"):
        publish.start(empty, wanted, "a", token="t")
    assert empty.jobs() == [] and len(project.jobs()) == 1


def test_the_front_door_pushes_in_a_child_and_the_token_is_nowhere(
    project, memory, endpoint, monkeypatch, capsys
) -> None:
    environment = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": WRITER}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    words = ["--home", str(project.workspace.home), "--project", "shop", "--json", "data", "push", "fjord"]
    assert main([*words, "--licence", "mit"]) == 0, capsys.readouterr()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["repo"], result["rows"]) == (f"{endpoint}/datasets/writer/fjord", 39)
    assert memory.repos["datasets/writer/fjord"].private
    for file in project.job(result["job"]).path.rglob("*"):
        assert file.is_dir() or WRITER.encode() not in file.read_bytes(), file
    monkeypatch.delenv("HF_TOKEN")
    assert main(words) == 2 and "wants a token" in capsys.readouterr().err


def test_what_was_pushed_is_imported_as_it_was(project, memory, endpoint, tmp_path: Path) -> None:
    from ft_core.data import formats

    pushed(asked(project), endpoint)
    repo = memory.repos["datasets/writer/fjord"]
    found = []
    for part in ("train", "test"):
        path = tmp_path / f"{part}.parquet"
        path.write_bytes(repo.files[f"data/{part}-00000-of-00001.parquet"])
        found += formats.read(path)
    with Store(project.data) as store:
        assert set(found) == {conversation for _, conversation, _ in store.conversations()} and len(found) == 39
