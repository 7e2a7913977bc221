"""Sizes from which the training computes in another way. Torch-free: the estimate counts by the same."""

CHECKPOINTED_FROM = 1_000_000_000
"""Parameters from which activations are computed again on the way back instead of kept (gradient checkpointing)."""
SHORT = 256
"""Tokens up to which a CPU is a seventh faster with plain attention, whose memory grows with their square."""
CHUNK = 256
"""Learnt tokens whose logits are in memory at once."""
