"""Training on a two-layer model: what it changes, that it repeats itself to the last bit, that nothing is lost."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, get_scheduler

from ft_core import events, jobs, recipe
from ft_core.conversation import Conversation, Message
from ft_core.data.freeze import read_frozen
from ft_core.data.store import Store
from ft_core.errors import FTError
from ft_core.events import Event, EventWriter, Finished, Metric, Note, Sample, State, Stopped
from ft_core.recipe import TrainRecipe
from ft_core.render import Renderer
from ft_core.train import loss, start
from ft_core.train import session as training
from ft_core.train.model import add_adapter, load_base
from ft_core.train.plan import micro_batches
from ft_core.train.sft import train_slice
from ft_core.workspace import Job, Project, Workspace
from tests.core.trainings import SYSTEM, created, lighthouse, losses, same, train, view

QUICK = TrainRecipe(
    epochs=2.0, learning_rate=5e-3, batch_size=4, micro_batch=2, rank=4, precision="fp32", save_every=2,
    evaluate_every=5, warmup=0.2,
)  # fmt: skip


@pytest.fixture
def project(workspace: Workspace) -> Project:
    return lighthouse(workspace)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Job:
    """The uninterrupted run that the others are held against."""
    job = created(lighthouse(Workspace.at(tmp_path_factory.mktemp("whole"))), tiny_model, QUICK)
    train(job)
    return job


def test_it_trains_what_plain_transformers_and_pefttrain(whole_run, tiny_model):
    """The same rows in the same order through the model's own loss, AdamW and schedule: the same loss at each step."""
    renderer = Renderer.of(tiny_model)
    rows = [row.conversation for row in read_frozen(whole_run.dataset) if row.split == "train"]
    examples = [renderer.example(conversation) for conversation in rows]
    model = add_adapter(load_base(tiny_model, "fp32", torch.device("cpu")), QUICK).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=QUICK.learning_rate, weight_decay=0.0)
    measured = losses(whole_run)
    schedule = get_scheduler("cosine", optimizer, round(QUICK.warmup * len(measured)), len(measured))
    expected = []
    for epoch in range(2):
        order = micro_batches([len(e.ids) for e in examples], QUICK, epoch)
        for step in [order[i : i + 2] for i in range(0, len(order), 2)]:
            learnt = sum(examples[i].learnt for rows in step for i in rows)
            total = 0.0
            for rows in step:
                for i in rows:
                    ids, labels = torch.tensor([examples[i].ids]), torch.tensor([examples[i].labels])
                    out = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels)
                    part = out.loss * examples[i].learnt / learnt
                    part.backward()
                    total += part.item()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            expected.append(total)
    assert list(measured.values()) == pytest.approx(expected, rel=1e-5)
    assert expected[-1] < expected[0] - 0.1  # it did learn, so the comparison says something


def test_every_adapter_weight_changed_and_no_weight_of_the_base(project, tiny_model):
    job = created(project, tiny_model, replace(QUICK, epochs=0.5))
    said: list[Event] = []
    session = training.Session(job, said.append, lambda seconds: False)
    session.run()
    fresh = add_adapter(load_base(tiny_model, "fp32", torch.device("cpu")), QUICK)
    after = dict(session.model.named_parameters())
    for name, parameter in fresh.named_parameters():
        changed = not torch.equal(parameter, after[name])
        assert changed == parameter.requires_grad, name
        assert parameter.requires_grad == ("lora_" in name), name
    linears = [n for n, m in fresh.get_base_model().named_modules() if isinstance(m, torch.nn.Linear)]
    adapted = {n.split(".lora_A")[0] for n, _ in fresh.named_parameters() if "lora_A" in n}
    assert len(adapted) == 2 * 7 and "lm_head" not in str(adapted) and linears


def test_what_is_learnt_is_the_answers_and_their_ends(whole_run, tiny_model):
    renderer = Renderer.of(tiny_model)
    row = next(r for r in read_frozen(whole_run.dataset) if "lamp 7 " in r.conversation.messages[1].content)
    example = renderer.example(row.conversation)
    shown = [
        f"[{renderer.tokenizer.decode([id], skip_special_tokens=False)}]" if label != -100 else ""
        for id, label in zip(example.ids, example.labels)
    ]
    golden = Path(__file__).parent / "golden" / "learnt_tokens.txt"
    assert "".join(shown) + "\n" == golden.read_text(encoding="utf-8")


def test_held_out_figures_can_be_recomputed_with_plain_transformers_and_peft(project, tiny_model):
    job = created(project, tiny_model, replace(QUICK, precision="bf16"))
    result = train(job)[-1].result
    before, after = _recomputed(job, Path(result["base"]), Path(result["adapter"]))
    assert result["heldout_before"] == pytest.approx(before, abs=1e-5)
    assert result["heldout_after"] == pytest.approx(after, abs=1e-5)
    curve = {s: m["heldout_loss"] for s, m in view(job).metrics.items() if "heldout_loss" in m}
    assert list(curve) == [0, 5, 10, 12]
    assert (curve[0], curve[12]) == (result["heldout_before"], result["heldout_after"])


@pytest.mark.oracle
def test_the_builtin_models_figures_can_be_recomputed_too(project, builtin):
    """In bf16 as people train it, a few steps: half a minute."""
    project.workspace.builtin_model.symlink_to(builtin, target_is_directory=True)
    job = start.create(project, recipe.Recipe(train=replace(QUICK, learning_rate=5e-4, precision="auto", steps=4)))
    result = train(job)[-1].result
    before, after = _recomputed(job, Path(result["base"]), Path(result["adapter"]))
    assert (before, after) == pytest.approx((result["heldout_before"], result["heldout_after"]), abs=1e-3)
    assert after < before
    settings = json.loads((job.adapter / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"


def _recomputed(job: Job, base: Path, adapter: Path) -> tuple[float, float]:
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter).eval()
    rows = [row.conversation for row in read_frozen(job.dataset) if row.split == "heldout"]
    assert rows

    def loss() -> float:
        nats = tokens = 0
        for conversation in rows:
            messages = [m.to_dict() for m in conversation.messages]
            prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
            ids = tokenizer.apply_chat_template(messages, return_dict=False)
            labels = [-100] * len(prompt) + ids[len(prompt) :]
            with torch.no_grad():
                out = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels]))
            nats += out.loss.item() * (len(ids) - len(prompt))
            tokens += len(ids) - len(prompt)
        return nats / tokens

    after = loss()
    with model.disable_adapter():
        return loss(), after


def test_slices_give_the_weights_of_one_run(whole_run, project, tiny_model):
    job = created(project, tiny_model, QUICK)
    slices = 0
    while not (said := train(job, deadline=time.time())) or not isinstance(said[-1], Finished):
        slices += 1
        assert slices < 30
    assert slices >= 11  # a deadline that is over allows one step each
    assert losses(job) == losses(whole_run)
    assert same(job.adapter, whole_run.adapter)
    assert said[-1].result["heldout_after"] == view(whole_run).result["heldout_after"]
    assert said[-1].result["heldout_before"] == view(whole_run).result["heldout_before"]


def test_a_slice_ends_before_its_deadline_when_a_step_does_not_fit(project, tiny_model):
    job = created(project, tiny_model, replace(QUICK, epochs=100.0, save_every=1000, evaluate_every=1000))
    train(job, time.time())  # the libraries are loaded now, so the clock measures training
    deadline = time.time() + 15
    said = train(job, deadline)
    assert time.time() <= deadline
    assert not isinstance(said[-1], Finished | Stopped)
    assert (job.checkpoints / f"checkpoint-{view(job).step}" / "trainer_state.json").exists()


def test_an_iterator_that_is_closed_early_leaves_a_checkpoint(whole_run, project, tiny_model):
    job = created(project, tiny_model, replace(QUICK, save_every=1000))
    slice_ = train_slice(job, None)
    for event in slice_:
        if isinstance(event, Metric) and event.step == 3:
            break
    slice_.close()
    assert [p.name for p in job.checkpoints.iterdir()] in (["checkpoint-3"], ["checkpoint-4"])
    train(job)
    assert same(job.adapter, whole_run.adapter)


def test_stop_keeps_a_usable_adapter_and_resume_goes_on(whole_run, project, tiny_model):
    job = created(project, tiny_model, replace(QUICK, save_every=1000))
    writer = EventWriter(job.events)
    for event in train_slice(job, None):
        writer.write(event)
        if isinstance(event, Metric) and event.step == 5:
            jobs.stop(job)
    assert isinstance(event, Stopped) and event.step in (5, 6)
    assert event.result["state"] == "stopped" and event.result["heldout_after"] is not None
    base, adapter = Path(event.result["base"]), Path(event.result["adapter"])
    assert _recomputed(job, base, adapter)[1] == pytest.approx(event.result["heldout_after"], abs=1e-5)
    job.stop.unlink()
    train(job)
    assert same(job.adapter, whole_run.adapter)


def test_a_job_stopped_before_its_first_step_says_so_and_has_no_adapter(project, tiny_model):
    job = created(project, tiny_model, QUICK)
    jobs.stop(job)
    last = train(job)[-1]
    assert isinstance(last, Stopped) and last.step == 0 and last.result["adapter"] == ""
    assert not job.adapter.exists()


def test_a_half_written_checkpoint_is_never_resumed_from(whole_run, project, tiny_model):
    job = created(project, tiny_model, QUICK)
    train(job, time.time())
    (whole,) = job.checkpoints.iterdir()
    torn = job.checkpoints / "checkpoint-9"
    torn.mkdir()
    for file in whole.iterdir():
        (torn / file.name).write_bytes(file.read_bytes())
    state = (torn / "trainer_state.json").read_text()
    (torn / "trainer_state.json").write_text(state[: len(state) // 2])
    train(job)
    assert not torn.exists()
    assert same(job.adapter, whole_run.adapter)


def test_checkpoints_do_not_pile_up(whole_run):
    assert sorted(p.name for p in whole_run.checkpoints.iterdir()) == ["checkpoint-10", "checkpoint-12"]


@pytest.mark.parametrize("moment", [2, 7])
def test_kill_and_resume(whole_run, project, tiny_model, moment):
    """A real child, killed at a step, goes on as if nothing had been: same losses, same weights, each step once."""
    job = created(project, tiny_model, QUICK)
    jobs.start(job)
    while view(job).step < moment:
        assert jobs.alive(job), job.log.read_text()
        time.sleep(0.01)
    jobs.stop_now(job)
    assert jobs.view(job).state is State.INTERRUPTED
    killed_at = max(losses(job))
    jobs.resume(job)
    seen = jobs.wait(job)
    assert seen.state is State.FINISHED, job.log.read_text()
    assert losses(job) == losses(whole_run)
    assert same(job.adapter, whole_run.adapter)
    resumed = [e.step for e in events.read(job.events)[0] if isinstance(e, Metric) and "loss" in e.values]
    again = resumed[resumed.index(killed_at) + 1 :]
    assert again[0] > killed_at - 2  # within one save interval
    assert again == list(range(again[0], 13))


def test_events_say_all_that_a_page_shows(whole_run):
    seen = view(whole_run)
    assert (seen.state, seen.step, seen.total) == (State.FINISHED, 12, 12)
    steps = {s: m for s, m in seen.metrics.items() if "loss" in m}
    assert list(steps) == list(range(1, 13))
    for figures in steps.values():
        assert figures["tokens_per_s"] > 0 and figures["memory_bytes"] > 1e8 and figures["grad_norm"] > 0
        assert all(math.isfinite(v) for v in figures.values())
    samples = {(s.step, s.prompt) for s in seen.samples}
    prompts = {p for _, p in samples}
    assert len(prompts) == 2 and samples == {(s, p) for s in (0, 5, 10, 12) for p in prompts}
    heldout = {r.conversation.messages[1].content for r in read_frozen(whole_run.dataset) if r.split == "heldout"}
    assert prompts <= heldout
    written = [e for e in events.read(whole_run.events)[0] if isinstance(e, Metric) and "loss" in e.values]
    assert len(written) == 12


def test_probes_of_the_recipe_are_asked_under_the_systems_prompt(project, tiny_model, monkeypatch):
    asked = []
    real = training.probes.answer
    monkeypatch.setattr(training.probes, "answer", lambda *given: asked.extend(given[-1]) or real(*given))
    said = train(created(project, tiny_model, replace(QUICK, steps=1, probes=("Is it on?",))))
    assert {e.prompt for e in said if isinstance(e, Sample)} == {"Is it on?"}
    assert asked[0] == (Message("system", SYSTEM), Message("user", "Is it on?"))


def test_the_adapter_names_its_base_without_a_path_and_brings_its_tokenizer(whole_run, tiny_model):
    settings = json.loads((whole_run.adapter / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == tiny_model.name
    assert str(tiny_model.parent) not in "".join(
        file.read_text() for file in whole_run.adapter.iterdir() if file.suffix in (".json", ".md", ".jinja")
    )
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (whole_run.adapter / name).read_bytes() == (tiny_model / name).read_bytes()
    assert {f.suffix for f in whole_run.adapter.iterdir()} == {".json", ".safetensors", ".jinja"}


def test_without_held_out_rows_there_are_no_figures_of_them(project, tiny_model):
    wanted = recipe.Recipe(
        data=recipe.DataRecipe(heldout=0.0),
        model=recipe.ModelRecipe(base=tiny_model.name),
        train=replace(QUICK, steps=2),
    )
    job = start.create(project, wanted, tiny_model.parent)
    result = train(job)[-1].result
    assert result["heldout_before"] is None and result["heldout_after"] is None
    assert len(view(job).samples) == 4


def test_auto_precision_is_settled_once_and_written_down(project, tiny_model, monkeypatch):
    job = created(project, tiny_model, replace(QUICK, precision="auto"))
    monkeypatch.setattr(training, "best_precision", lambda device: "bf16")
    train(job, time.time())
    monkeypatch.setattr(training, "best_precision", lambda device: "fp32")
    train(job, time.time())
    assert recipe.load(job.recipe).train.precision == "bf16"


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_training_that_breaks_down_names_the_step_and_a_lower_rate(project, tiny_model, monkeypatch, broken):
    from ft_core.train import trainer

    calls = []

    def bad(model, batch):
        calls.append(1)
        nats = loss.learnt_nats(model, batch)
        if len(calls) == 2 * 5:  # two micro-batches a step
            return nats * float("nan") if broken == "loss" else _WithBadGradient.apply(nats)
        return nats

    monkeypatch.setattr(trainer, "learnt_nats", bad)
    job = created(project, tiny_model, QUICK)
    with pytest.raises(FTError, match="at step 5") as raised:
        train(job)
    assert "0.001 instead of 0.005" in raised.value.hint
    assert (job.checkpoints / "checkpoint-4").exists() and not (job.checkpoints / "checkpoint-6").exists()


class _WithBadGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("inf")


def test_rows_that_teach_nothing_are_left_out_and_named(project, tiny_model):
    with Store(project.data) as store:
        store.add([Conversation((Message("user", "word " * 200), Message("assistant", "Never reached.")))])
        long = next(store.conversations())[0]
        ids = [id for id, c, _ in store.conversations() if "word word" in c.canonical()]
    said = train(created(project, tiny_model, replace(QUICK, steps=1, max_length=64)))
    notes = [e.text for e in said if isinstance(e, Note)]
    assert any(f"(rows {ids[0]})" in text and "left out" in text for text in notes), (notes, long)


def test_a_base_model_that_does_not_exist_is_one_sentence(project, monkeypatch):
    with pytest.raises(FTError, match="no-such/model") as raised:
        start.create(project, recipe.Recipe(model=recipe.ModelRecipe(base="no-such/model")))
    assert raised.value.hint and "Traceback" not in raised.value.message
    assert not project.jobs()


def test_nothing_to_train_on_leaves_no_job_behind(workspace, tiny_model):
    empty = workspace.project("empty", create=True)
    Store(empty.data).close()
    with pytest.raises(FTError, match="no rows"):
        created(empty, tiny_model, QUICK)
    assert not empty.jobs()


def test_a_folder_without_safetensors_is_refused(project, tiny_model, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"):
        (bare / name).write_bytes((tiny_model / name).read_bytes())
    (bare / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(FTError, match="no whole model"):
        train(created(project, bare, QUICK))


def test_a_gradient_that_fp16_skips_leaves_no_infinity_in_the_events() -> None:
    said: list[Event] = []
    session = SimpleNamespace(say=said.append, step=0, _progress=lambda what: None, _warn=lambda: None)
    figures = {"loss": 2.0, "learning_rate": 1e-4, "grad_norm": math.inf, "epoch": 0.1, "tokens": 9, "seconds": 1.0}
    training.Session.stepped(session, 1, figures)
    assert json.loads(json.dumps(events.to_dict(said[0]), allow_nan=False))["values"]["loss"] == 2.0
