"""FT Flow's core: everything that is not a widget. `python -m ft_core` does all that the page does."""
