"""Steps and the order of rows."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from math import ceil
from statistics import fmean, pstdev

from hypothesis import given
from hypothesis import strategies as st

from ft_core.recipe import TrainRecipe
from ft_core.train.plan import Plan, in_steps, micro_batches

_SIZES = st.integers(1, 9)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=60), _SIZES, _SIZES, st.integers(0, 3))
def test_an_epoch_has_every_row_once_in_the_steps_that_the_plan_counts(lengths, batch, micro, epoch):
    recipe = TrainRecipe(batch_size=batch, micro_batch=micro)
    order = micro_batches(lengths, recipe, epoch)
    assert Counter(i for rows in order for i in rows) == Counter(range(len(lengths)))
    accumulated = ceil(batch / micro)
    steps = [order[i : i + accumulated] for i in range(0, len(order), accumulated)]
    assert len(steps) == Plan.of(len(lengths), recipe).steps_an_epoch
    sizes = [sum(map(len, step)) for step in steps]
    assert sizes == [batch] * (len(lengths) // batch) + [r for r in [len(lengths) % batch] if r]
    assert order == micro_batches(lengths, recipe, epoch)


def test_epochs_and_seeds_differ_in_order():
    recipe = TrainRecipe()
    lengths = list(range(1, 41))
    first = micro_batches(lengths, recipe, 0)
    assert first != micro_batches(lengths, recipe, 1)
    assert first != micro_batches(lengths, replace(recipe, seed=1), 0)


def test_rows_of_like_length_come_together_within_a_step_and_steps_are_alike():
    lengths = [random.Random(i).randrange(10, 500) for i in range(400)]

    def waste(order):
        return 1 - sum(lengths) / sum(max(lengths[i] for i in rows) * len(rows) for rows in order)

    recipe = TrainRecipe(batch_size=8, micro_batch=2)
    by_chance = [list(range(i, i + 2)) for i in range(0, 400, 2)]
    assert waste(micro_batches(lengths, recipe, 0)) < 0.12 < 0.2 < waste(by_chance)

    # By chance the tokens of eight such rows differ by a fifth of their mean; those of sorted ones by more than half.
    steps = [sum(lengths[i] for i in rows) for rows in in_steps(lengths, recipe, 0)]
    assert pstdev(steps) < 0.25 * fmean(steps)


def test_a_plan_goes_by_epochs_or_by_steps():
    assert Plan.of(72, TrainRecipe(epochs=3)).steps == 27
    assert Plan.of(73, TrainRecipe(epochs=3)).steps == 30
    assert Plan.of(72, TrainRecipe(epochs=0.5)).steps == 4
    assert Plan.of(3, TrainRecipe(epochs=0.1)).steps == 1
    assert Plan.of(72, TrainRecipe(epochs=3, steps=5)).steps == 5
    assert Plan.of(72, TrainRecipe(epochs=3)).looks() == [0, 7, 14, 21, 27]
    assert Plan.of(72, TrainRecipe(steps=10, evaluate_every=4)).looks() == [0, 4, 8, 10]
