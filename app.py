"""FT Flow: fine-tune a small language model in one page. FT_HOME, HOST and PORT say where."""

from __future__ import annotations

import os
import threading

from ui.start import fast_start, spare_memory

spare_memory()
fast_start()  # before Gradio is imported

import gradio as gr  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402

from ft_core.train import models  # noqa: E402
from ui import downloads, page, theme  # noqa: E402
from ui.session import GuestCookies, House  # noqa: E402

HOUR_S = 3600


def keep_clean(house: House) -> None:
    """Removes guests' folders whose day is over, now and every hour."""
    house.clean_guests()
    again = threading.Timer(HOUR_S, keep_clean, [house])
    again.daemon = True
    again.start()


def main() -> None:
    house = House.of_environment()
    if house.on_space:
        keep_clean(house)
    models.prepare(page.workspace_of(house))
    demo: gr.Blocks = page.build(house)
    demo.queue(max_size=64, default_concurrency_limit=8)
    demo.launch(
        server_name=os.environ.get("HOST") or ("0.0.0.0" if house.on_space else "127.0.0.1"),
        server_port=int(os.environ.get("PORT") or 7860),
        ssr_mode=False,
        run_history=False,
        footer_links=["gradio", "settings"],
        max_file_size="2gb",
        theme=theme.theme(),
        css_paths=theme.STYLES,
        head=theme.head(),
        app_kwargs={
            "routes": downloads.routes(house),
            "middleware": [Middleware(GuestCookies, house=house)] if house.on_space else [],
        },
    )


if __name__ == "__main__":
    main()
