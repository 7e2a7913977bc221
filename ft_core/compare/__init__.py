"""Before against after: one base, one batch, two answers."""
