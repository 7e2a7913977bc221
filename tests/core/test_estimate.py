"""What a training is said to take, part by part, and where it would fit."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from huggingface_hub import SpaceHardware
from huggingface_hub._jobs_api import JobHardware

from ft_core.machine import Machine
from ft_core.recipe import ComputeRecipe, TrainRecipe
from ft_core.train import hardware, machines, models, processes
from ft_core.train.estimate import Estimate, estimate
from ft_core.train.limits import CHECKPOINTED_FROM, COMPILED, COMPILED_FROM_S
from ft_core.train.memory import _line as memory_line
from ft_core.train.memory import memory
from ft_core.train.plan import Ahead, Plan, micro_batches, of_one
from ft_core.train.sizes import Shape, Work

CPU = Machine(cores=2, memory_bytes=24 * 2**30, gpu="", gpu_memory_bytes=0)
GPU = Machine(cores=8, memory_bytes=30 * 10**9, gpu="NVIDIA L4", gpu_memory_bytes=24 * 10**9)
SMALL = Shape(576, 1536, 30, 49152, 9, 576, 192, True)
LARGE = Shape(4096, 14336, 32, 128256, 32, 4096, 1024, False)
WORK = Work(rows=400, tokens=80_000, heldout_tokens=8_000, longest=480, learnt=300, spread=120)


@pytest.fixture(autouse=True)
def _bf16(monkeypatch):
    for asks in ("estimate", "memory"):
        monkeypatch.setattr(f"ft_core.train.{asks}.multiplies_bf16", lambda: True)


def _bytes(shape: Shape = SMALL, machine: Machine = CPU, work: Work = WORK, **settings) -> int:
    return sum(memory(shape, TrainRecipe(**settings), machine, work).values())


def test_more_at_once_wants_more_memory():
    rows = [_bytes(micro_batch=n, batch_size=8) for n in (1, 2, 4, 8)]
    lengths = [_bytes(work=replace(WORK, longest=n)) for n in (264, 512, 1024, 4096)]
    assert all(a < b for a, b in pairwise(rows)) and all(a < b for a, b in pairwise(lengths))
    assert _bytes(micro_batch=64, batch_size=8) == _bytes(micro_batch=8, batch_size=8)  # there are no more in a batch
    assert _bytes(learns="preferences") > _bytes()  # two answers


def test_a_pair_is_two_rows_in_memory():
    pairs, rows = (
        memory(SMALL, TrainRecipe(learns=learns, micro_batch=n), CPU, WORK)
        for learns, n in (("preferences", 2), ("answers", 4))
    )
    assert pairs == rows
    few = replace(WORK, heldout_tokens=0)  # the pairs themselves are measured before the training
    assert memory(SMALL, TrainRecipe(learns="preferences", micro_batch=2), CPU, few) == pairs


def test_what_rows_begin_with_is_in_a_cpus_memory_once():
    rows = dict(micro_batch=8, batch_size=8)
    asked = replace(WORK, shared=100, asked=300)
    assert _bytes(work=replace(WORK, shared=100), **rows) < 0.95 * _bytes(**rows)
    assert _bytes(work=replace(WORK, shared=100), micro_batch=1) == _bytes(micro_batch=1)
    pairs = [_bytes(work=work, learns="preferences", **rows) for work in (replace(asked, asked=0), asked)]
    assert pairs[1] < 0.9 * pairs[0]
    assert _bytes(machine=GPU, work=asked, **rows) == _bytes(machine=GPU, **rows)


def test_rows_of_a_whole_step_are_hardly_ever_all_long():
    def line(**settings) -> int:
        return memory(SMALL, TrainRecipe(**settings), CPU, WORK)["activations"]

    alike = memory(SMALL, TrainRecipe(), CPU, replace(WORK, tokens=400 * 480, spread=0))["activations"]
    assert line(batch_size=8, micro_batch=8) < 0.8 * alike
    assert line(batch_size=32, micro_batch=8) == alike  # one of the four has the long ones
    assert line(batch_size=1, micro_batch=1) == line(batch_size=8, micro_batch=1)  # of one row the longest
    assert _bytes(machine=GPU) == _bytes(machine=GPU, work=replace(WORK, spread=0))  # padded to the longest


def test_one_long_row_among_short_ones_is_in_memory_some_time():
    def others(longest: int, spread: int) -> int:
        work = Work(rows=453, tokens=453 * 64, heldout_tokens=0, longest=longest, learnt=50, spread=spread)
        return memory_line(8, longest, TrainRecipe(), work)

    assert others(2048, 95) >= 2048 + 7 * 64
    assert others(64, 0) == 8 * 64


def test_cores_that_multiply_less_at_once_take_longer(monkeypatch):
    def seconds(bf16: bool, sixteen: bool) -> float:
        monkeypatch.setattr("ft_core.train.estimate.multiplies_bf16", lambda: bf16)
        monkeypatch.setattr("ft_core.train.estimate.multiplies_sixteen", lambda: sixteen)
        return estimate(SMALL, TrainRecipe(compiled="no"), CPU, WORK).training_seconds

    took = [seconds(True, True), seconds(False, True), seconds(False, False)]
    assert all(a < 0.7 * b for a, b in pairwise(took)), took


def test_weights_that_are_shared_out_are_counted_once_among_all():
    """FSDP2: each has its part of them and of what trains them, and whole for a while what computes."""
    train = TrainRecipe(method="full", precision="bf16")
    alone, of_eight = memory(LARGE, train, GPU, WORK), memory(LARGE, train, GPU, WORK, 8)
    whole = 8 * (LARGE.embeddings + 2 * LARGE.a_layer)  # weights and gradients, in fp32
    assert of_eight["weights"] == alone["weights"] // 8 + whole
    assert of_eight["trained weights and optimizer"] == alone["trained weights and optimizer"] // 8
    assert all(of_eight[name] == alone[name] for name in ("activations", "logits", "libraries"))

    on_a_cpu = memory(LARGE, train, CPU, WORK, 8)  # where each has all of them at first
    assert on_a_cpu["weights"] == alone["weights"]

    eight = ComputeRecipe(processes=8, strategy="fsdp")
    assert [processes.shares(eight, method) for method in ("lora", "full", "layers", "dora")] == [8, 8, 1, 1]
    assert processes.shares(replace(eight, strategy="ddp"), "full") == 1


@pytest.mark.parametrize("shape", [SMALL, LARGE])
def test_methods_stand_in_the_order_of_what_they_keep(shape):
    wanted = [_bytes(shape, GPU, method=m) for m in ("qlora", "qlora-8bit", "lora", "full")]
    assert all(a < b for a, b in pairwise(wanted))
    assert _bytes(shape, GPU, method="lora") == _bytes(shape, GPU, method="rslora") < _bytes(shape, GPU, method="dora")
    one, two = (_bytes(shape, GPU, method="layers", layers=n) for n in (1, 2))
    assert one < two < _bytes(shape, GPU, method="full")


def test_what_is_trained_is_counted_with_its_gradient_and_moments():
    parts = memory(SMALL, TrainRecipe(method="full", precision="fp32"), CPU, WORK)
    assert parts["weights"] == 4 * SMALL.parameters
    assert parts["trained weights and optimizer"] == 12 * SMALL.parameters
    assert estimate(SMALL, TrainRecipe(method="full"), CPU, WORK).checkpoint_bytes == 12 * SMALL.parameters
    joined = 2 * 30 * (576 * (576 + 2 * 192) + 576 * 2 * 1536)  # of queries, keys, values, gate and up, once more
    assert memory(SMALL, TrainRecipe(), CPU, WORK)["weights"] == 2 * SMALL.parameters + joined
    assert memory(SMALL, TrainRecipe(method="dora"), CPU, WORK)["weights"] == 2 * SMALL.parameters
    assert memory(SMALL, TrainRecipe(), GPU, WORK)["weights"] == 2 * SMALL.parameters


def test_large_models_keep_one_layer_and_what_lies_between_the_layers():
    assert LARGE.parameters > CHECKPOINTED_FROM > SMALL.parameters
    every = LARGE.layers * 2 * LARGE.hidden * 8 * 480
    assert every < memory(LARGE, TrainRecipe(), GPU, WORK)["activations"] < 3 * every


def test_plain_attention_grows_with_the_square_of_the_length():
    def kept(longest: int) -> int:
        alike = replace(WORK, longest=longest, tokens=400 * longest, spread=0)
        return memory(SMALL, TrainRecipe(), CPU, alike)["activations"]

    assert kept(256) / 256 > 1.1 * kept(128) / 128
    assert kept(1024) / 1024 == pytest.approx(kept(512) / 512, rel=0.01)  # the other one does not


def test_methods_take_their_time():
    def seconds(**settings) -> float:
        return estimate(SMALL, TrainRecipe(**settings), CPU, WORK).training_seconds

    assert seconds(method="layers", layers=1) < seconds() < seconds(method="full")
    assert seconds() < seconds(method="dora")
    of_another = estimate(SMALL, TrainRecipe(compiled="no"), CPU, WORK, tokens_per_s=100.0)
    assert of_another.training_seconds == pytest.approx(80_000 * 3 / 100)


def test_long_trainings_are_compiled_and_shorter_for_it():
    def said(machine: Machine = CPU, shape: Shape = SMALL, **settings) -> Estimate:
        return estimate(shape, TrainRecipe(**settings), machine, WORK, tokens_per_s=100.0)

    plain, usual = said(compiled="no"), said()
    assert plain.training_seconds > COMPILED_FROM_S and usual.compiled and not plain.compiled
    assert usual.training_seconds == pytest.approx(COMPILED * plain.training_seconds)
    assert plain.seconds > usual.seconds > COMPILED * plain.seconds
    assert not said(steps=1).compiled and said(steps=1, compiled="yes").compiled
    others = [{"method": "dora"}, {"dropout": 0.1}, {"machine": GPU}, {"shape": LARGE}]
    assert not any(said(**other).compiled for other in others)
    assert not estimate(SMALL, of_one(TrainRecipe(compiled="yes"), 2), CPU, WORK).compiled  # processes share no code


def test_fits_tight_and_too_big():
    said = estimate(SMALL, TrainRecipe(), CPU, WORK)
    assert hardware.fits(said, said.memory_bytes * 2) == "fits"
    assert hardware.fits(said, said.memory_bytes) == "tight"
    assert hardware.fits(said, said.memory_bytes - 1) == "too big"


def test_the_listed_hardware_is_what_the_hub_offers():
    listed = machines.offered()
    assert {h.name for h in listed if h.space_usd is not None} <= {str(s.value) for s in SpaceHardware}
    assert {h.name for h in listed if h.job_usd is not None} <= {str(j.value) for j in JobHardware}
    assert len({h.name for h in listed}) == len(listed)
    for h in listed:
        assert bool(h.gpu) == bool(h.gpu_memory_gb) and h.cpus > 0 and h.memory_gb > 0
        assert 0 <= h.usd < 10 and (h.tflops is None or 50 < h.tflops < 2000 and h.gpu)


def test_a_gpu_is_known_by_the_name_that_its_driver_gives_it():
    assert machines.tflops("NVIDIA A100-SXM4-80GB") == 312
    assert machines.tflops("Tesla T4") == 65
    assert machines.tflops("NVIDIA L40S") == 362  # not an L4
    assert machines.tflops("NVIDIA RTX 4090") is None


def test_what_it_would_be_on_rented_machines():
    offers = {
        o.hardware.name: o
        for o in hardware.offers(lambda m: estimate(LARGE, TrainRecipe(method="qlora"), m, WORK), "qlora")
    }
    assert offers["l4x1"].fit == "fits" and not offers["l4x1"].why_not
    assert offers["l4x1"].usd == pytest.approx(offers["l4x1"].seconds / 3600 * 0.8)
    assert offers["h200"].seconds < offers["l4x1"].seconds < offers["t4-small"].seconds
    assert offers["cpu-xl"].why_not and offers["a10g-small"].seconds is None
    full = hardware.offers(lambda m: estimate(LARGE, TrainRecipe(method="full"), m, WORK), "full")
    assert {o.hardware.name: o.fit for o in full}["l4x1"] == "too big"


def test_listed_models_fit_or_not():
    found = {m.base: m for m in models.catalog()}
    assert models.fit(found["built-in"], TrainRecipe(), CPU)[0] == "fits"
    eight = found["Qwen/Qwen3-8B"]
    assert models.fit(eight, TrainRecipe(method="full"), GPU)[0] == "too big"
    assert models.fit(eight, TrainRecipe(method="qlora"), GPU)[0] == "fits"


def test_what_is_ahead_is_counted_in_tokens():
    lengths = [10, 200, 30, 40, 500, 60, 7]
    recipe = TrainRecipe(epochs=2.0, batch_size=3, micro_batch=2)
    ahead = Ahead(lengths, recipe)
    assert ahead.tokens(0) == 2 * sum(lengths) and ahead.tokens(Plan.of(7, recipe).steps) == 0
    first = [i for rows in micro_batches(lengths, recipe, 0)[:2] for i in rows]
    assert ahead.tokens(0) - ahead.tokens(1) == sum(lengths[i] for i in first)
    assert ahead.tokens(3) == sum(lengths)  # an epoch is over
