"""From frozen rows to an adapter: model, preflight, estimate, training in slices."""
