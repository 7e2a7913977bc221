"""From an adapter to files that run elsewhere, each checked before it is offered."""
