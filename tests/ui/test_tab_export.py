"""What the Export tab offers follows from what was trained last, on a page that stays open too."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr
import pytest

from ft_core import jobs
from ft_core.errors import FTError
from ft_core.events import EventWriter, Finished
from ft_core.recipe import Recipe, TrainRecipe
from ft_core.workspace import Project, Workspace
from ui.frame import Frame, Recipes
from ui.runs import Runs
from ui.session import House
from ui.tab_export import ExportTab

REQUEST = SimpleNamespace(session_hash="mine")


def trained(project: Project, method: str) -> None:
    job = jobs.create(project, "train", Recipe(train=TrainRecipe(method=method)))
    writer = EventWriter(job.events)
    writer.write(Finished({"adapter": str(job.adapter)}))
    writer.close()


def test_places_follow_the_newest_run(workspace: Workspace) -> None:
    project = workspace.project("harbour", create=True)
    with gr.Blocks():
        name = gr.Textbox()
        tab = ExportTab(Frame(House(workspace.home, on_space=False), Runs(), name), Recipes())

    def offered(at: str) -> tuple[list[str], str]:
        update = tab.tick(project, at)
        assert "value" not in update[tab.where]._constructor_args[0]  # what is chosen stays
        return [key for _, key in update[tab.where].choices], update[tab.go].value

    trained(project, "lora")
    assert offered("adapter") == (["ollama", "gguf", "merged", "adapter", "hub"], "Make it, about 1 min")
    trained(project, "full")
    assert offered("hub") == (["ollama", "gguf", "merged", "hub"], "Push it")
    given = {name: "harbour", tab.where: "adapter", tab.type: "Q8_0", tab.name: "", tab.repo: ""}
    with pytest.raises(FTError, match="not said where"):
        tab.make(given, REQUEST)
    assert len(project.jobs()) == 2
