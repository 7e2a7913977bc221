"""What a page says when something goes wrong: a sentence where it happened, and never a trace."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any

import gradio as gr

from ft_core.errors import FTError

from . import say
from .panel import draw

log = logging.getLogger("ft_flow.page")

INTERNAL = FTError(
    "That did not work, and the fault is ours: a defect of FT Flow.",
    "What you have is kept. The trace is in the log of the app; reload the page and try once more.",
)


def error(message: str, hint: str = "") -> str:
    return draw("error", message=message, hint=hint)


def told(notice: gr.HTML) -> Callable[[Callable], Callable]:
    """Handlers of the page return {component: value}; what they raise is shown in `notice`, which is cleared else.

    Here, and in the two functions below, is the page's last resort: a defect becomes a sentence and its trace goes to
    the log.
    """

    def wrap(handler: Callable) -> Callable:
        @functools.wraps(handler)
        def run(*args: Any, **kwargs: Any) -> dict[Any, Any]:
            try:
                return {notice: "", **(handler(*args, **kwargs) or {})}
            except Exception as problem:
                return {notice: _sentence(problem)}

        @functools.wraps(handler)
        def stream(*args: Any, **kwargs: Any):
            try:
                for update in handler(*args, **kwargs):
                    yield {notice: "", **update}
            except Exception as problem:
                yield {notice: _sentence(problem)}

        return stream if inspect.isgeneratorfunction(handler) else run

    return wrap


def part_of(notice: gr.HTML, show: Callable[..., dict[Any, Any]], *args: Any) -> dict[Any, Any]:
    """What one tab shows; when that breaks its notice says so, and the other tabs are there all the same."""
    try:
        return show(*args)
    except Exception as problem:
        return {notice: _sentence(problem)}


def answered(function: Callable) -> Callable:
    """The same for what a component's own script calls: the answer is {"error", "hint"} then."""

    def refused(problem: Exception) -> dict[str, str]:
        known = _known(problem)
        return {"error": say.sentence(known.message), "hint": say.sentence(known.hint)}

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as problem:
            return refused(problem)

    @functools.wraps(function)
    async def wait(*args: Any, **kwargs: Any) -> Any:
        try:
            return await function(*args, **kwargs)
        except Exception as problem:
            return refused(problem)

    return wait if inspect.iscoroutinefunction(function) else run


def _sentence(problem: Exception) -> str:
    known = _known(problem)
    return error(known.message, known.hint)


def _known(problem: Exception) -> FTError:
    if isinstance(problem, FTError):
        return problem
    log.error("a handler of the page broke", exc_info=problem)
    return INTERNAL
