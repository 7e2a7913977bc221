"""What comes before everything else in the process of the page: a fast start, and memory that is given back.

Half of Gradio's import is rewriting `.pyi` files for its components; `fast_start()` before it skips that.

`gradio.component_meta.create_or_modify_pyi` runs for each component class in every process that imports Gradio and
writes type stubs beside the installed package: of use to somebody who writes components, of none to an app (3.4 s to
the first page against 2.0 s without, on two cores). The hook acts once, on that one module, and puts nothing in its
place when Gradio no longer has the function.
"""

from __future__ import annotations

import ctypes
import importlib.abc
import importlib.machinery
import platform
import sys
from types import ModuleType

_ARENA_MAX, _MMAP_THRESHOLD = -8, -3
"""Names of glibc's malloc.h."""
_MODULE, _FUNCTION = "gradio.component_meta", "create_or_modify_pyi"


class _SkipStubs(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path, target: ModuleType | None = None):
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_without_stubs(module: ModuleType) -> None:
            load(module)
            if hasattr(module, _FUNCTION):
                setattr(module, _FUNCTION, lambda *args, **kwargs: None)

        spec.loader.exec_module = load_without_stubs  # type: ignore[method-assign]
        return spec


def fast_start() -> None:
    """To be called before the first import of Gradio; harmless after it."""
    if _MODULE not in sys.modules:
        sys.meta_path.insert(0, _SkipStubs())


def spare_memory() -> None:
    """Gives freed memory back to the system; to be called before threads begin. Does nothing without glibc.

    Each of Gradio's threads gets an arena of its own otherwise, and large arrays stay in them once they are freed:
    with a million rows, sorted and searched, the process held 438 MB, and 306 MB so.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_ARENA_MAX, 2)
        libc.mallopt(_MMAP_THRESHOLD, 1 << 20)
