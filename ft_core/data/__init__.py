"""The dataset: a store of rows, the file formats, their quality, the split."""
