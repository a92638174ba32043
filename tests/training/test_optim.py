"""Schedules against closed forms, the running average against a sum, decay only where it belongs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pixelwise.config import OptimSettings, ScheduleSettings
from pixelwise.training.optim import AVERAGED_SHARE, Average, Schedule, make_optimizer


def rates(name, lr=1.0, **settings):
    schedule = Schedule(ScheduleSettings(name=name, **settings), lr)
    return lambda p: schedule.at(p)


def test_warm_up_is_linear_and_then_the_shape_begins():
    for name in ("cosine", "poly", "constant", "plateau"):
        at = rates(name, lr=4.0, warmup=0.2)
        assert [at(p) for p in (0, 0.05, 0.1, 0.2)] == pytest.approx([0, 1, 2, 4])
        assert rates(name, warmup=0.0)(0.0) == 1


@pytest.mark.parametrize("p", [0.1, 0.3, 0.55, 0.9, 1.0, 2.0])
def test_closed_forms(p):
    rest = (min(p, 1) - 0.1) / 0.9
    assert rates("cosine", warmup=0.1)(p) == pytest.approx(math.cos(math.pi / 2 * rest) ** 2)
    assert rates("poly", warmup=0.1, power=0.7)(p) == pytest.approx((1 - rest) ** 0.7)
    assert rates("constant", warmup=0.1)(p) == 1


def test_one_cycle_is_torchs():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=101, pct_start=0.3, div_factor=25)
    ours = rates("onecycle")
    for step in range(101):  # torch's rise ends at step 0.3 x 101 - 1 = 29.3 of 100, ours at 30
        share = step / 29.3 * 0.3 if step <= 29.3 else 0.3 + (step - 29.3) / 70.7 * 0.7
        assert ours(share) == pytest.approx(theirs.get_last_lr()[0], rel=1e-3, abs=1.1e-4)
        optimizer.step()
        if step < 100:
            theirs.step()


def test_plateau_is_torchs():
    schedule = Schedule(ScheduleSettings(name="plateau", factor=0.5, patience=2, warmup=0.0), 1.0)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", 0.5, 2, threshold=0.0)
    for score in (0.1, 0.2, 0.1, 0.2, 0.2, 0.2, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1):
        schedule.scored(score)
        theirs.step(score)
        assert schedule.at(0.5) == optimizer.param_groups[0]["lr"]
    again = Schedule(schedule.settings, 1.0)
    again.restore(schedule.state())
    assert again == schedule


def test_only_plateau_looks_at_scores():
    schedule = Schedule(ScheduleSettings(name="cosine", patience=0), 1.0)
    for _ in range(5):
        schedule.scored(0.0)
    assert schedule.scale == 1


@pytest.mark.parametrize(("name", "kind", "decay"), [
    ("adamw", torch.optim.AdamW, 0.01), ("adam", torch.optim.Adam, 0.0), ("sgd", torch.optim.SGD, 1e-4),
    ("rmsprop", torch.optim.RMSprop, 0.0),
])  # fmt: skip
def test_optimisers(name, kind, decay):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    net[1].bias.requires_grad_(False)
    made = make_optimizer(net, OptimSettings(name=name, momentum=0.8), 0.3)
    assert type(made) is kind
    assert [g["weight_decay"] for g in made.param_groups] == [decay, 0]
    assert [len(g["params"]) for g in made.param_groups] == [1, 2]  # the kernel; its bias and the norm's scale
    assert {g["lr"] for g in made.param_groups} == {0.3}
    if name in ("sgd", "rmsprop"):
        assert made.param_groups[0]["momentum"] == 0.8
    own = make_optimizer(net, OptimSettings(name=name, weight_decay=0.5), 0.3)
    assert [g["weight_decay"] for g in own.param_groups] == [0.5, 0]


def test_average_with_a_fixed_decay():
    average, values = Average(0.9), torch.randn(200, dtype=torch.float64)
    expected = 0.0
    for n, value in enumerate(values):
        keep = min(0.9, (1 + n) / (10 + n)) if n else 0.0  # the first value is taken as it is
        expected = keep * expected + (1 - keep) * float(value)
        average.update([("w", value), ("count", torch.tensor(n))], 0.0, 0.0)
    assert float(average.values["w"]) == pytest.approx(expected)
    assert int(average.values["count"]) == 199
    assert average.steps == 200


def test_average_looks_back_over_a_share_of_the_training():
    """Fed its own progress, an average with a window w lags by w."""
    average, steps = Average(None), 20_000
    for n in range(1, steps + 1):
        average.update([("w", torch.tensor(n / steps, dtype=torch.float64))], n / steps, 1 / steps)
    assert 1 - float(average.values["w"]) == pytest.approx(AVERAGED_SHARE, rel=0.01)


def test_average_starts_anew_from_each_early_step():
    average = Average(None)
    for n in range(1, 4):
        average.update([("w", torch.tensor(float(n)))], n / 10_000, 1 / 10_000)
    assert float(average.values["w"]) == pytest.approx(3, abs=0.1)
