"""Numbers as people say them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """`40 s`, `2 min`, `1 h 10 min`: rounded the way one speaks of it."""
    if seconds < 55:
        return f"{max(5, 5 * round(seconds / 5))} s" if seconds > 5 else "a few seconds"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(5 * round(seconds / 300), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def size(count: float) -> str:
    """Bytes as `101 MB` or `2.1 GB` (decimal, as file managers and Ollama show them)."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            figure = count / scale
            return f"{figure:.1f} {unit}" if unit == "GB" and figure < 100 else f"{figure:.0f} {unit}"
    return f"{count:.0f} bytes"


def memory(count: float) -> str:
    """Bytes of memory as `2.1 GB`, in units of 2**30, as machines are sold."""
    return f"{count / 2**30:.1f} GB" if count < 10 * 2**30 else f"{count / 2**30:.0f} GB"


def amount(count: float) -> str:
    """`4,310`."""
    return f"{count:,.0f}"


def percent(share: float) -> str:
    """A change with its sign, as `−31 %` with a true minus."""
    return f"{share * 100:+.0f} %".replace("-", "−")


def sentence(text: str) -> str:
    """`text` as a sentence: messages are written to stand behind `error:` too. Names of files stay as they are."""
    text = text.strip()
    if not text:
        return ""
    if text.split()[0].rstrip(",:").isalpha():
        text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?:…" else f"{text}."
