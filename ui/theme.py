"""How the page looks where Gradio draws it: one accent on warm greys, thin lines, system fonts, two text sizes and a
heading. What we draw ourselves is in static/page.css, with the same variables."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from gradio.themes.utils import colors, sizes

STATIC = Path(__file__).parent / "static"
STYLES = [STATIC / name for name in ("page.css", "grid.css", "drawer.css", "train.css")]

_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
_TEXT = sizes.Size(name="ft", xxs="12px", xs="12px", sm="12px", md="14px", lg="14px", xl="20px", xxl="20px")
_SPACE = sizes.Size(name="ft", xxs="2px", xs="4px", sm="4px", md="8px", lg="8px", xl="16px", xxl="24px")
_RADIUS = sizes.Size(name="ft", xxs="3px", xs="3px", sm="4px", md="6px", lg="6px", xl="6px", xxl="8px")
_GREY = colors.Color(
    name="ft-grey", c50="#fbfaf8", c100="#f4f2ef", c200="#e6e3de", c300="#d3cfc8", c400="#a39e95", c500="#6e6960",
    c600="#57534b", c700="#3b3833", c800="#262421", c900="#1b1a18", c950="#131211",
)  # fmt: skip
_PINE = colors.Color(
    name="ft-pine", c50="#eef7f4", c100="#d8ede6", c200="#b3dccf", c300="#84c6b3", c400="#5cc3a6", c500="#22917a",
    c600="#0d6e5c", c700="#0a5a4b", c800="#0a483d", c900="#0a3b33", c950="#06211d",
)  # fmt: skip


def theme() -> gr.themes.Base:
    return gr.themes.Base(
        primary_hue=_PINE, secondary_hue=_PINE, neutral_hue=_GREY,
        text_size=_TEXT, spacing_size=_SPACE, radius_size=_RADIUS, font=_FONT, font_mono=_MONO,
    ).set(
        body_background_fill="*neutral_50", body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_900", body_text_color_dark="#ece9e4",
        body_text_color_subdued="*neutral_500", body_text_color_subdued_dark="#a8a299",
        background_fill_primary="#ffffff", background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_100", background_fill_secondary_dark="*neutral_800",
        border_color_primary="*neutral_200", border_color_primary_dark="#34312d",
        border_color_accent="*primary_600", border_color_accent_dark="*primary_400",
        color_accent="*primary_600", color_accent_soft="*primary_50", color_accent_soft_dark="*primary_950",
        block_background_fill="transparent", block_background_fill_dark="transparent", block_border_width="0px",
        block_border_width_dark="0px", block_shadow="none", block_shadow_dark="none", block_padding="0px",
        block_radius="0px", block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent", block_label_border_width="0px",
        block_label_text_size="*text_sm", block_label_text_weight="400", block_label_padding="0px",
        block_title_text_size="*text_sm", block_title_text_weight="400",
        block_title_text_color="*neutral_500", block_title_text_color_dark="#a8a299",
        block_info_text_size="*text_sm", block_info_text_color="*neutral_500", block_info_text_color_dark="#a8a299",
        panel_background_fill="transparent", panel_background_fill_dark="transparent", panel_border_width="0px",
        form_gap_width="16px", layout_gap="16px", section_header_text_size="*text_sm",
        input_background_fill="#ffffff", input_background_fill_dark="*neutral_900",
        input_background_fill_focus="#ffffff", input_background_fill_focus_dark="*neutral_900",
        input_border_color="*neutral_300", input_border_color_dark="#45413b", input_border_width="1px",
        input_border_width_dark="1px", input_border_color_focus="*primary_600",
        input_border_color_focus_dark="*primary_400", input_padding="8px 12px", input_shadow="none",
        input_shadow_focus="none", input_shadow_focus_dark="none", input_text_size="*text_md",
        input_placeholder_color="*neutral_400", input_placeholder_color_dark="#7d776e",
        checkbox_background_color_selected="*primary_600", checkbox_background_color_selected_dark="*primary_400",
        checkbox_border_color="*neutral_400", checkbox_border_color_dark="*neutral_500",
        checkbox_border_color_selected="*primary_600", checkbox_border_color_selected_dark="*primary_400",
        checkbox_label_background_fill="transparent", checkbox_label_background_fill_dark="transparent",
        checkbox_label_background_fill_hover="transparent", checkbox_label_background_fill_hover_dark="transparent",
        checkbox_label_background_fill_selected="transparent",
        checkbox_label_background_fill_selected_dark="transparent",
        checkbox_label_border_width="0px", checkbox_label_border_width_dark="0px", checkbox_label_padding="0px",
        checkbox_label_shadow="none", checkbox_label_text_size="*text_md", checkbox_label_text_weight="400",
        checkbox_label_text_color_selected="*body_text_color",
        checkbox_label_text_color_selected_dark="*body_text_color",
        slider_color="*primary_600", slider_color_dark="*primary_400",
        button_large_padding="8px 16px", button_small_padding="5px 12px", button_large_radius="6px",
        button_small_radius="6px", button_large_text_size="*text_md", button_small_text_size="*text_md",
        button_large_text_weight="500", button_small_text_weight="400", button_border_width="1px",
        button_border_width_dark="1px", button_transition="none",
        button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_400", button_primary_background_fill_hover_dark="*primary_300",
        button_primary_border_color="*primary_600", button_primary_border_color_dark="*primary_400",
        button_primary_text_color="#ffffff", button_primary_text_color_dark="*neutral_950",
        button_primary_shadow="none", button_primary_shadow_hover="none",
        button_secondary_background_fill="transparent", button_secondary_background_fill_dark="transparent",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_hover_dark="*neutral_800",
        button_secondary_border_color="*neutral_300", button_secondary_border_color_dark="#45413b",
        button_secondary_text_color="*body_text_color", button_secondary_text_color_dark="*body_text_color",
        link_text_color="*primary_600", link_text_color_dark="*primary_400",
        table_even_background_fill="transparent", table_odd_background_fill="transparent",
        loader_color="*primary_600", loader_color_dark="*primary_400",
    )  # fmt: skip


def head() -> str:
    """The page's own scripts, inline, so that nothing is asked of another host."""
    scripts = [(STATIC / name).read_text(encoding="utf-8") for name in ("page.js", "progress.js")]
    return "".join(f"<script>{script}</script>" for script in scripts)
