"""Whole exports of a tiny model: what is written, what is checked, and what is left out when a check fails."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from ft_core import jobs
from ft_core.errors import FTError
from ft_core.events import Note, Progress, State, Stopped
from ft_core.export import gguf as writer
from ft_core.export import modelfile, start, verify
from ft_core.export.verify import Answer, Heard, Reference
from ft_core.workspace import Job
from tests.core.exporting import SYSTEM, export_job, exported, result_of, training
from tests.stand_ins.ollama import parse_modelfile


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    return training(tmp_path_factory.mktemp("home"), tiny_model)


@pytest.fixture(scope="module")
def whole(trained: Job, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The result of an export to everything that needs no server."""
    out = tmp_path_factory.mktemp("out")
    return result_of(exported(export_job(trained, "adapter", "merged", "gguf:F16", "ollama", out=str(out))))


def test_everything_is_there_and_verified(whole: dict) -> None:
    names = {Path(f).relative_to(whole["path"]).as_posix() for f in whole["files"]}
    assert whole["verified"] is True
    assert {"fjord-F16.gguf", "fjord-Q4_K_M.gguf", "Modelfile", "fjord-ollama.zip"} <= names
    assert {"fjord/model.safetensors", "fjord/chat_template.jinja", "fjord/README.md"} <= names
    assert {"fjord-lora/adapter_model.safetensors", "fjord-lora/tokenizer.json"} <= names
    assert {p.name for p in Path(whole["path"]).iterdir()} == {n.split("/")[0] for n in names}  # no scratch is left
    for check in whole["checks"]:
        assert set(check) == {"name", "kind", "passed", "figure"} and check["kind"] in ("gate", "warning")


def test_merged_is_base_plus_adapter(whole: dict, trained: Job, tiny_model: Path) -> None:
    folder = Path(whole["path"]) / "fjord"
    ids = torch.arange(50, 90)[None]
    with torch.inference_mode():
        base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        plain = base(ids).logits
        tuned = PeftModel.from_pretrained(base, trained.adapter)(ids).logits
        merged = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits
    assert (merged - tuned).abs().max() < 0.1 * (tuned - plain).abs().max()
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [2]
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    messages = [{"role": "user", "content": "Hello"}]
    texts = [
        AutoTokenizer.from_pretrained(f).apply_chat_template(messages, tokenize=False) for f in (folder, tiny_model)
    ]
    assert texts[0] == texts[1]


def test_nothing_speaks_of_this_machine(whole: dict, trained: Job, tiny_model: Path) -> None:
    home = str(trained.project.workspace.home)
    for file in map(Path, whole["files"]):
        data = file.read_bytes()
        assert home.encode() not in data and str(tiny_model.parent).encode() not in data, file
    adapter = json.loads((Path(whole["path"]) / "fjord-lora" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == tiny_model.name


def test_the_card_says_what_was_done(whole: dict) -> None:
    card = ModelCard.load(Path(whole["path"]) / "fjord" / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.license is None and card.data.base_model is None  # a folder has no id, and no licence is made up
    assert "3.200 before, 2.100 after (-34%)" in card.text
    assert "> You are the help desk of Fjord Coffee." in card.text
    assert "licence is that of the base model, tiny-llama" in card.text


def test_the_zip_holds_what_ollama_create_wants(whole: dict) -> None:
    with zipfile.ZipFile(whole["zip"]) as zipped:
        assert zipped.testzip() is None
        assert set(zipped.namelist()) == {"fjord-Q4_K_M.gguf", "Modelfile"}
        assert all(info.compress_type == zipfile.ZIP_STORED for info in zipped.infolist())
        found = dict(parse_modelfile(zipped.read("Modelfile").decode()))
    assert (found["from"], found["system"], found["stop"]) == ("./fjord-Q4_K_M.gguf", SYSTEM, "<|im_end|>")


def test_a_file_that_fails_its_checks_is_not_given_out(
    trained: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = writer._loader

    def wrong(file: Path, key: str, dtype: type, heads: int):
        load = right(file, key, dtype, heads)
        return (lambda: load() * 3) if key == "model.norm.weight" else load

    monkeypatch.setattr(writer, "_loader", wrong)
    events = exported(export_job(trained, "merged", "gguf:F16", "gguf:Q8_0", out=str(tmp_path)))
    result = result_of(events)
    assert result["verified"] is False
    assert {Path(f).parent.name for f in result["files"]} == {"fjord"}  # the merged model is right
    assert [p.name for p in tmp_path.iterdir()] == ["fjord"]
    assert any(isinstance(e, Note) and "Left out" in e.text and e.level == "warning" for e in events)
    with pytest.raises(FTError, match="nothing passed its checks: F16: says what the merged model says"):
        exported(export_job(trained, "gguf:Q8_0", out=str(tmp_path)))


def test_a_modelfile_stands_beside_every_gguf(trained: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = result_of(exported(export_job(trained, "gguf:F16", "gguf:Q8_0", out=str(tmp_path))))
    assert {Path(f).name for f in result["files"]} == {"fjord-F16.gguf", "fjord-Q8_0.gguf", "Modelfile"}
    assert "\nFROM ./fjord-Q8_0.gguf\n" in (tmp_path / "Modelfile").read_text()

    def refuse(*_: object) -> None:
        raise FTError("the template cannot be taken apart")

    monkeypatch.setattr(modelfile.Modelfile, "of", refuse)
    events = exported(export_job(trained, "gguf:F16", out=str(tmp_path / "other")))
    assert [Path(f).name for f in result_of(events)["files"]] == ["fjord-F16.gguf"]
    assert any(isinstance(e, Note) and "No Modelfile for Ollama" in e.text for e in events)


def test_an_earlier_export_stays_until_a_better_one_is_there(trained: Job, tmp_path: Path) -> None:
    (tmp_path / "fjord-lora").mkdir()
    (tmp_path / "fjord-lora" / "old").write_text("old")
    steps = export_job(trained, "adapter", out=str(tmp_path))
    assert "old" not in {Path(f).name for f in result_of(exported(steps))["files"]}
    assert not (tmp_path / "fjord-lora" / "old").exists()


def test_stop_ends_it_and_leaves_nothing_half_done(trained: Job, tmp_path: Path) -> None:
    job = export_job(trained, "merged", "gguf:F16", out=str(tmp_path))
    seen = []
    from ft_core.export.run import run

    for event in run(job, {}):
        seen.append(event)
        if isinstance(event, Progress):
            job.stop.touch()
    assert isinstance(seen[-1], Stopped) and seen[-1].result["files"] == []
    assert list(tmp_path.iterdir()) == []


def test_no_room_on_the_disk_is_said_first(trained: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(FTError, match="needs about .* and 0.0 GB are free"):
        exported(export_job(trained, "merged", out=str(tmp_path)))


def test_the_child_does_it_too(trained: Job) -> None:
    job = start.start(trained.project, trained, ["adapter"], name="My Model!")
    view = jobs.wait(job)
    assert view.state is State.FINISHED, (view.error, job.log.read_text()[-2000:])
    assert view.result["path"] == str(job.export)
    assert (job.export / "My-Model-lora" / "adapter_config.json").exists()


@pytest.mark.parametrize(
    ("to", "options", "token", "said"),
    [
        ([], {}, "", "needs a kind"),
        (["gguf:Q2_K"], {}, "", "no export to 'gguf:Q2_K'"),
        (["hub"], {}, "", "wants a token"),
        (["hub"], {"push": "ollama"}, "hf_x", "cannot go to the Hub"),
        (["hub"], {"repo": "a/b/c"}, "hf_x", "no name for a Hub repository"),
    ],
)
def test_what_is_refused_before_it_starts(trained: Job, to, options, token, said) -> None:
    before = len(trained.project.jobs())
    with pytest.raises(FTError, match=said):
        start.start(trained.project, trained, to, options=options, token=token)
    assert len(trained.project.jobs()) == before


def test_no_ollama_is_offered_from_a_space(trained: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "someone/space")
    with pytest.raises(FTError, match="Space cannot reach"):
        start.start(trained.project, trained, ["ollama"], options={"host": "http://192.168.0.2:11434"})


# --- the judge, without a runtime -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judged(trained: Job):
    from ft_core.export.trained import Trained

    source = Trained.of(trained, lambda share, what: None)
    ids = verify.chat_ids(source)
    size = 49152
    log_probs = torch.log_softmax(torch.randn(len(ids), size, generator=torch.Generator().manual_seed(0)), -1).numpy()
    likeliest = tuple(
        tuple((int(i), float(row[i])) for i in row.argsort()[::-1][:200]) for row in log_probs[: len(ids) - 1]
    )
    answers = tuple(Answer((1,), tuple(range(i, i + 9)), True) for i in range(5))
    prompts = tuple(source.renderer.text(p, answer_next=True) for p in source.prompts(5))
    tokens = tuple(source.renderer.ids(verify.chat_text(source)))
    heard = Heard(tokens, prompts, likeliest, answers)
    reference = Reference(log_probs, (True,) * 5, answers)

    def failing(type_: str, heard: Heard, reference: Reference = reference) -> list[str]:
        checks = verify.compare(type_, heard, source, reference)
        return [c.name.split(": ")[1].split(" (")[0] for c in checks if not c.passed]

    return heard, reference, failing


def test_the_judge_passes_what_is_right(judged) -> None:
    heard, _, failing = judged
    assert failing("F16", heard) == [] and failing("Q4_K_M", heard) == []


def test_the_judge_sees_each_fault(judged) -> None:
    heard, reference, failing = judged
    endless = tuple(replace(a, ended=False) for a in heard.answers)
    circles = tuple(replace(a, ids=(7, 8) * 20, ended=False) for a in heard.answers)
    flat = tuple(tuple((i, -20.0) for i, _ in row) for row in heard.likeliest)
    assert failing("Q8_0", replace(heard, tokens=(1, *heard.tokens))) == ["same tokens as trained"]
    assert failing("Q8_0", replace(heard, prompts=("x", *heard.prompts[1:]))) == [
        "its chat template writes what was trained on"
    ]
    assert failing("Q8_0", replace(heard, likeliest=flat)) == ["says what the merged model says"]
    assert failing("Q8_0", replace(heard, answers=endless)) == ["its answers end by themselves"]
    assert "its answers do not turn in circles" in failing("Q8_0", replace(heard, answers=circles))
    assert failing("F16", heard, replace(reference, agrees=(True,) * 4 + (False,))) == [
        "same greedy text as transformers"
    ]
