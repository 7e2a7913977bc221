"""Figures that the README and the notes quote: `python -m benchmarks.NAME`, each prints one JSON object last."""
