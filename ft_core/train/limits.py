"""Sizes from which the training computes in another way. Torch-free: memory.py and estimate.py count by the same."""

CHECKPOINTED_FROM = 1_000_000_000
"""Parameters from which activations are computed again on the way back instead of kept (gradient checkpointing)."""
SHORT = 256
"""Tokens up to which a CPU is a seventh faster with plain attention, whose memory grows with their square."""
PAD_TO = 8
"""Lengths are padded to a multiple of this: what matrix kernels like."""
LINES = 64
"""Of rows that are computed as one line (packing.py), the same. Matrix products prepare for each new length, which
takes longer than the product itself."""
CHUNK = 256
"""Learnt tokens whose logits are in memory at once."""
LOOKED = 64
"""The same where nothing is learnt from them: they are there in fp32, and their logarithms beside them."""
BLOCK = 16
"""Of CHUNK, how many a CPU has in fp32 at once: with a vocabulary of 50,000 its cache holds as many."""
LEARNT = 32
"""The rows of a chunk are filled up to a multiple of this: matrix products prepare for each new number of rows, and
keep what they prepared, which with a vocabulary of 50,000 is 15 ms and 3 MB."""
COMPILED_FROM_S = 180.0
"""Seconds of training from which on what compiled layers save (compiled.py) is more than what compiling takes."""
COMPILED = 0.75
"""What a step by compiled layers takes of the time that one by plain layers does: 0.8 with AVX512-bf16, 0.7 with AMX,
which leaves less to the products."""
COMPILING_S = 15.0
"""Half a minute the first time that a machine compiles a kind of layer, five seconds later on."""
