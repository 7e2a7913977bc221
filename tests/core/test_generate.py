"""Rows from a teacher: planned, checked, kept one by one, resumed; and what is said when it does not go well."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import psutil
import pytest

from ft_core import events, jobs
from ft_core.conversation import Conversation, Message
from ft_core.data.example import example_project
from ft_core.data.store import Store
from ft_core.errors import FTError
from ft_core.events import Finished, JobView, Metric, Progress, State, Stopped
from ft_core.generate import plan, synthesize
from ft_core.generate.writer import Questions
from ft_core.recipe import GenerateRecipe, Recipe
from ft_core.workspace import Job, Project, Workspace
from tests.stand_ins.openai_endpoint import Endpoint, refuses, row, says

KEY = "sk-a-key-that-nobody-may-see"


@pytest.fixture
def project(workspace: Workspace) -> Project:
    return example_project(workspace)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as endpoint:
        yield endpoint


def recipe(endpoint: Endpoint, rows: int, **more) -> Recipe:
    return Recipe(generate=GenerateRecipe(rows=rows, teacher=endpoint.url, model="m", **more))


def run_here(project: Project, recipe: Recipe) -> tuple[Job, JobView]:
    """The child's work in this process: the same events in the same file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "start", lambda job, secrets=None: None)
        job = synthesize.start(project, recipe)
    return job, again_here(job)


def again_here(job: Job) -> JobView:
    writer = events.EventWriter(job.events)
    try:
        for event in synthesize.run(job, {}):
            writer.write(event)
    finally:
        writer.close()
    return events.fold(events.read(job.events)[0])


def until(true: Callable[[], bool], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def written(project: Project) -> list[Conversation]:
    with Store(project.data) as store:
        found = [row.conversation for row in store.rows(limit=1000, view="review")]
    return [conversation for conversation in found if conversation.origin.startswith("generated:")]


def assert_each_once(project: Project, job: Job, wanted: int) -> None:
    origins = Counter(conversation.origin for conversation in written(project))
    planned = {f"generated:{job.id}:{plan.row_id(0, index)}" for index in range(wanted)}
    assert set(origins) == planned
    assert set(origins.values()) == {1}


# --- the plan


def test_a_plan_is_the_same_for_the_same_seed_and_goes_through_the_topics_evenly() -> None:
    topics = [f"topic {n}" for n in range(7)]
    rows = plan.rows(topics, 70, seed=3)
    assert rows == plan.rows(topics, 70, seed=3)
    assert rows != plan.rows(topics, 70, seed=4)
    assert rows[:20] == plan.rows(topics, 20, seed=3)
    assert set(Counter(row.topic for row in rows).values()) == {10}
    assert len({row.id for row in rows}) == 70
    assert len({(row.topic, row.person, row.tone, row.length) for row in rows}) > 65


def test_a_plan_on_disk_is_the_plan(tmp_path) -> None:
    made = plan.Plan(plan.rows(["a", "b"], 5, 0), 12, 34)
    made.save(tmp_path / "plan.json")
    assert plan.Plan.load(tmp_path / "plan.json") == made


def test_questions_that_are_nearly_equal_are_one() -> None:
    taken = Questions()
    assert taken.claim("Do you ship to Norway?") == ""
    assert taken.claim("do you ship to  NORWAY") == "do you ship to norway"
    assert taken.claim("Do you ship to Norways?") == "do you ship to norway"
    assert taken.claim("Do you ship to Sweden?") == ""
    assert taken.claim("???") == "" and taken.claim("???") == "???"


# --- with llama.cpp


def test_the_built_in_teacher_writes_rows_and_goes_on_after_a_kill(project: Project) -> None:
    job = synthesize.start(project, Recipe(generate=GenerateRecipe(rows=4, max_tokens=200, temperature=0.6)))
    until(lambda: len(written(project)) >= 1, 240)
    jobs.stop_now(job)
    assert jobs.view(job).state is State.INTERRUPTED
    survived = written(project)
    jobs.resume(job)
    seen = jobs.wait(job)
    assert seen.state is State.FINISHED, (seen, job.log.read_text())
    result = seen.result
    assert result["asked"] == 4 == result["added"] + len(result["rejected"])
    rows = written(project)
    assert len(rows) == result["added"] == len({c.origin for c in rows}) and set(survived) <= set(rows)
    for conversation in rows:
        assert [m.role for m in conversation.messages] == ["user", "assistant"]
        assert all(m.content.strip() for m in conversation.messages)
    assert result["prompt_tokens"] > 400 and result["completion_tokens"] > 40
    assert "small" in seen.notes[0].text


# --- killed, stopped, resumed


def test_a_kill_loses_nothing_and_doubles_nothing(project: Project, endpoint: Endpoint) -> None:
    endpoint.delay_s, endpoint.key = 0.1, KEY
    job = synthesize.start(project, recipe(endpoint, 30), KEY)
    child = psutil.Process(int(job.pid.read_text().split()[0]))
    until(lambda: len(written(project)) >= 6)
    assert KEY not in " ".join(child.cmdline()) and KEY not in " ".join(child.environ().values())
    jobs.stop_now(job)
    assert jobs.view(job).state is State.INTERRUPTED
    survived = len(written(project))
    assert 6 <= survived < 30
    jobs.resume(job, {"api_key": KEY})
    seen = jobs.wait(job)
    assert seen.state is State.FINISHED, seen
    assert seen.result["added"] == 30 and seen.result["rejected"] == []
    assert_each_once(project, job, 30)
    assert len(endpoint.asked) <= 30 + synthesize.REMOTE_AT_ONCE  # again only what was under way
    assert len(endpoint.requests) - len(endpoint.asked) == 1  # the topics, once
    assert {r.key for r in endpoint.requests} == {KEY}
    files = [path for path in project.workspace.home.rglob("*") if path.is_file()]
    assert len(files) > 6 and not [path for path in files if KEY.encode() in path.read_bytes()]
    with Store(project.data) as store:
        assert store.undo() and store.undo()  # the two sessions' rows are two operations, however many rows
        assert not store.count("review")


def test_a_kill_between_the_row_and_its_result(project: Project, endpoint: Endpoint) -> None:
    job, seen = run_here(project, recipe(endpoint, 6))
    assert seen.result["added"] == 6
    results = job.path / "results.jsonl"
    lines = results.read_text().splitlines(keepends=True)
    results.write_text("".join(lines[:-2]) + lines[-2][:15])  # one result is missing, of one there is a half
    asked = len(endpoint.asked)
    assert again_here(job).result["added"] == 6
    assert len(endpoint.asked) == asked
    assert_each_once(project, job, 6)


def test_a_row_that_the_person_deleted_does_not_come_back(project: Project, endpoint: Endpoint) -> None:
    job, _ = run_here(project, recipe(endpoint, 6))
    with Store(project.data) as store:
        store.delete([store.rows(view="review")[0].id])
    again_here(job)
    assert len(written(project)) == 5 and len(endpoint.asked) == 6


def test_stop_keeps_what_is_there_and_resume_goes_on(project: Project, endpoint: Endpoint) -> None:
    endpoint.delay_s = 0.1
    job = synthesize.start(project, recipe(endpoint, 40))
    until(lambda: len(written(project)) >= 3)
    jobs.stop(job)
    seen = jobs.wait(job)
    assert seen.state is State.STOPPED
    assert 3 <= seen.result["added"] == len(written(project)) < 40
    endpoint.delay_s = 0
    jobs.resume(job)
    assert jobs.wait(job).result["added"] == 40
    assert len(endpoint.asked) == 40  # what was under way when it stopped was kept
    assert_each_once(project, job, 40)


def test_progress_and_figures(project: Project, endpoint: Endpoint) -> None:
    endpoint.delay_s = 0.3
    job, seen = run_here(project, recipe(endpoint, 12))
    happened = events.read(job.events)[0]
    steps = [e for e in happened if isinstance(e, Progress) and e.eta_s is not None]
    assert [e.step for e in steps] == sorted(e.step for e in steps) and steps[-1].step == steps[-1].total == 12
    assert 0 < steps[0].eta_s < 10 and steps[-1].eta_s == 0
    metrics = [e.values for e in happened if isinstance(e, Metric)]
    assert metrics[-1] == {"prompt_tokens": 13 * 7, "completion_tokens": 13 * 3, "added": 12, "rejected": 0}
    assert seen.result["prompt_tokens"] == 13 * 7
    assert max(Counter(r.at // 0.25 for r in endpoint.asked).values()) >= synthesize.REMOTE_AT_ONCE


# --- what is asked and what is taken


def test_what_the_teacher_is_told(project: Project, endpoint: Endpoint) -> None:
    with Store(project.data) as store:
        kept = [row for row in store.rows(limit=1000) if row.split == "train"]
        held = {row.conversation.messages[0].content for row in store.rows(view="heldout")}
        store.set_status([row.id for row in kept[3:]], "candidate")
        accepted = {row.conversation.messages[0].content for row in kept[:3]}
        system = store.system
    run_here(project, recipe(endpoint, 8))
    for request in endpoint.asked:
        first, *examples, last = request.body["messages"]
        assert system in first["content"] and "Topic: " in last["content"]
        shown = [json.loads(m["content"])["user"] for m in examples if m["role"] == "assistant"]
        assert set(shown) == accepted and not set(shown) & held
    bodies = [r.body for r in endpoint.asked]
    assert len({b["seed"] for b in bodies}) == len({b["messages"][-1]["content"] for b in bodies}) == 8
    assert all(b["response_format"]["json_schema"]["strict"] for b in bodies)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row("", "An answer."), "the question is empty"),
        (row("A question?", " "), "the answer is empty"),
        (row("The same", "the same"), "only repeats the question"),
        (row("Do you ship to Norway ?", "Yes."), "it repeats a question: do you ship to norway"),
        (row("Why?", "No, no, no. " * 20), "it goes in circles"),
        (says('{"user": "Why?", "assistant": "Bec', "length"), "it was cut off at 400 tokens"),
        (says("I would rather not."), "not answer in the form"),
        (says('{"user": ["Why?"], "assistant": 3}'), "not answer in the form"),
        (says("<think>hm"), "not answer in the form"),
    ],
    ids=["question", "answer", "same", "repeated", "circles", "cut off", "prose", "types", "thinking"],
)
def test_a_bad_row_is_asked_for_again_and_then_named(
    project: Project, endpoint: Endpoint, bad: object, reason: str
) -> None:
    endpoint.queue.extend([bad, bad])
    _, seen = run_here(project, recipe(endpoint, 1))
    assert (seen.result["added"], len(endpoint.asked)) == (1, 3)  # two bad ones, then a good one
    endpoint.always = bad
    job, seen = run_here(project, recipe(endpoint, 1, seed=1))
    assert seen.state is State.FINISHED and seen.result["added"] == 0
    [rejected] = seen.result["rejected"]
    assert rejected["row"] == plan.row_id(1, 0) and reason in rejected["reason"]
    assert len(endpoint.asked) == 6
    assert len(written(project)) == 1
    assert [n.level for n in seen.notes] == ["warning"] and "1 of 1 rows could not be written" in seen.notes[0].text
    endpoint.always = None
    assert again_here(job).result["added"] == 1  # a failure is not for ever


def test_fenced_json_is_taken(project: Project, endpoint: Endpoint) -> None:
    endpoint.queue.append(says('Here:\n```json\n{"user": "Is it {round}?", "assistant": "It is."}\n```'))
    run_here(project, recipe(endpoint, 1))
    assert written(project)[0].messages == (Message("user", "Is it {round}?"), Message("assistant", "It is."))


# --- what goes wrong


def test_when_most_rows_fail_the_rest_is_not_asked_for(project: Project, endpoint: Endpoint) -> None:
    endpoint.always = refuses(400, "this model writes no JSON")
    with pytest.raises(FTError, match="10 of 10 rows failed, the first one so: .*this model writes no JSON"):
        run_here(project, recipe(endpoint, 100))
    assert len(endpoint.asked) <= synthesize.FIRST_LOOK + synthesize.REMOTE_AT_ONCE


def test_a_few_failures_are_named_and_the_rest_is_delivered(project: Project, endpoint: Endpoint) -> None:
    endpoint.queue.extend([refuses(400, "a bad moment")] * 3)
    _, seen = run_here(project, recipe(endpoint, 20))
    assert seen.result["added"] == 17 == len(written(project))
    assert len(seen.result["rejected"]) == 3
    assert all("a bad moment" in r["reason"] for r in seen.result["rejected"])


def test_a_refused_key_fails_the_job_in_one_sentence(project: Project, endpoint: Endpoint) -> None:
    endpoint.key = "another one"
    job = synthesize.start(project, recipe(endpoint, 5), KEY)
    seen = jobs.wait(job)
    assert seen.state is State.FAILED and "refuses the key" in seen.error
    assert KEY not in job.events.read_text() + job.log.read_text()
    endpoint.key = KEY
    jobs.resume(job, {"api_key": KEY})
    assert jobs.wait(job).result["added"] == 5


def test_what_cannot_begin(workspace: Workspace, project: Project, endpoint: Endpoint) -> None:
    good = recipe(endpoint, 3)
    before = project.jobs()
    with pytest.raises(FTError, match="no rows are asked for"):
        synthesize.start(project, Recipe())
    with pytest.raises(FTError, match="not the address"):
        synthesize.start(project, replace(good, generate=replace(good.generate, teacher="some where")))
    with pytest.raises(FTError, match="holds a name"):
        synthesize.start(project, replace(good, generate=replace(good.generate, teacher=f"http://me:{KEY}@host/v1")))
    with pytest.raises(FTError, match="letters that no key has"):
        synthesize.start(project, good, "“sk-1”")
    with pytest.raises(FTError, match="nothing to write rows by"):
        synthesize.start(workspace.project("empty", create=True), good)
    assert project.jobs() == before


def test_the_events_end_as_the_contract_says(project: Project, endpoint: Endpoint) -> None:
    job, _ = run_here(project, recipe(endpoint, 2))
    assert isinstance(events.read(job.events)[0][-1], Finished)
    job.stop.touch()
    (job.path / "results.jsonl").unlink()
    with Store(project.data) as store:
        store.undo()  # as if nothing had been written
    again_here(job)
    assert isinstance(events.read(job.events)[0][-1], Stopped)


def test_without_the_wheel_the_teacher_is_made_of_the_model_from_the_hub(
    with_builtin: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gguf import GGUFReader

    from ft_core import work

    said = list(work.make_builtin_gguf(with_builtin))
    assert said and all(isinstance(event, Progress) for event in said)
    assert len(GGUFReader(with_builtin.builtin_f16).tensors) == 272
    monkeypatch.setattr(synthesize, "builtin_gguf", lambda: None)
    assert synthesize.builtin_file(with_builtin) == with_builtin.builtin_f16
    assert list(work.make_builtin_gguf(with_builtin)) == []
