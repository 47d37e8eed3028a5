"""The loop on a task of a few numbers: resumed anywhere it ends with the bits of a run that was never stopped."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from atelier import machine
from atelier.params import Optimisation
from atelier.seeds import seed_of
from atelier.training import averages as moving
from atelier.training import checkpoints
from atelier.training.loop import Task, Watch, fit, learning_rate
from atelier.training.order import Turn, turns
from tolerance import assert_close

STEPS, SAMPLES = 23, 10
ASKED = Optimisation(
    steps=STEPS, batch=4, learning_rate=0.05, decay="cosine", warmup=3, beta2=0.99, weight_decay=0.01, clip=1.0,
    ema=2.5, checkpoint_every=5,
)  # fmt: skip
SEED = 11


class Killed(BaseException):
    """No handler may catch it, as none catches SIGKILL."""


@pytest.fixture(scope="module")
def here() -> Iterator[Accelerator]:
    """One thread: two of them wait for each other longer than these few numbers take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Accelerator(cpu=True)
    torch.set_num_threads(before)


def changed(**other: object) -> Optimisation:
    return Optimisation(**{**ASKED.model_dump(), **other})  # type: ignore[arg-type]


def regression(before: Callable[[int], None] = lambda step: None) -> Task:
    """Two linear maps and a convolution laid out channels last; dropout, so that the step's own chance matters."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": nn.Linear(4, 3), "b": nn.Linear(3, 1), "c": nn.Conv2d(8, 4, 3, padding=1)})
    model["c"].to(memory_format=torch.channels_last)
    x, y = torch.randn(SAMPLES, 4), torch.randn(SAMPLES, 1)
    pictures = torch.randn(SAMPLES, 8, 5, 5)
    step = 0

    def losses(batch: Sequence[Turn]) -> dict[str, Tensor]:
        nonlocal step
        before(step)
        step += 1
        chosen = [turn.sample for turn in batch]
        hidden = nn.functional.dropout(model["a"](x[chosen]), 0.3)
        return {
            "fit": (model["b"](hidden) - y[chosen]).square().mean(),
            "picture": model["c"](pictures[chosen].to(memory_format=torch.channels_last)).square().mean(),
        }

    return Task(dict(model.named_parameters()), [f"work-{i}" for i in range(SAMPLES)], losses)


def run(
    folder: Path, here: Accelerator, asked: Optimisation = ASKED, task: Task | None = None
) -> tuple[dict[str, Tensor], pd.DataFrame]:
    task = task or regression()
    history = fit(task, asked, seed=SEED, scratch=folder, accelerator=here)
    return {name: value.detach().clone() for name, value in task.trainable.items()}, history


def run_stopped_before(folder: Path, here: Accelerator, step: int, asked: Optimisation = ASKED) -> None:
    """The ``step``-th step of this process is never done."""

    def stop(now: int) -> None:
        if now == step:
            raise Killed

    with pytest.raises(Killed):
        run(folder, here, asked, regression(stop))


def journal(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "journal").read_text().splitlines()]


def assert_equal_bits(one: tuple[dict[str, Tensor], pd.DataFrame], two: tuple[dict[str, Tensor], pd.DataFrame]) -> None:
    assert one[0].keys() == two[0].keys()
    for name, value in one[0].items():
        assert torch.equal(value, two[0][name]), name
    pd.testing.assert_frame_equal(one[1], two[1], check_exact=True)
    assert one[1].to_csv() == two[1].to_csv()


@pytest.mark.parametrize("ema", [0.0, 2.5])
@pytest.mark.parametrize("cut", range(STEPS))
def test_resumed_after_any_step_it_ends_as_if_never_stopped(
    tmp_path: Path, here: Accelerator, ema: float, cut: int, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = changed(ema=ema)
    whole = run(tmp_path / "whole", here, asked)
    run_stopped_before(tmp_path / "cut", here, cut, asked)
    capsys.readouterr()
    assert_equal_bits(run(tmp_path / "cut", here, asked), whole)
    first = cut // ASKED.checkpoint_every * ASKED.checkpoint_every
    assert f"first executed {first}, executed here {STEPS - first}" in capsys.readouterr().out
    assert journal(tmp_path / "cut") == [*range(cut), *range(first, STEPS)]
    assert journal(tmp_path / "whole") == list(range(STEPS))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 9), min_size=1, max_size=5), every=st.integers(1, 9))
def test_stopped_again_and_again_with_any_interval(
    tmp_path_factory: pytest.TempPathFactory, here: Accelerator, cuts: list[int], every: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    asked = changed(checkpoint_every=every)
    whole = run(folder / "whole", here, asked)
    for cut in cuts:
        try:
            run_stopped_before(folder / "cut", here, cut, asked)
        except pytest.fail.Exception:  # it had fewer steps to go, and is done
            break
    assert_equal_bits(run(folder / "cut", here, asked), whole)


def test_a_finished_run_is_not_trained_again(tmp_path: Path, here: Accelerator) -> None:
    whole = run(tmp_path, here)
    assert_equal_bits(run(tmp_path, here), whole)
    assert journal(tmp_path) == list(range(STEPS))


def test_moments_of_a_resumed_run_are_laid_out_as_the_parameters(
    tmp_path: Path, here: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels differ with the layout, and so may bits."""
    run_stopped_before(tmp_path, here, 7)
    found: list[torch.optim.Optimizer] = []
    init = torch.optim.AdamW.__init__
    monkeypatch.setattr(
        torch.optim.AdamW, "__init__", lambda self, *a, **k: (init(self, *a, **k), found.append(self))[0]
    )
    task = regression()
    run(tmp_path, here, ASKED, task)
    for parameter, state in found[0].state.items():
        assert state["exp_avg"].stride() == state["exp_avg_sq"].stride() == parameter.stride()
    assert not task.trainable["c.weight"].is_contiguous()


def test_another_seed_is_refused(tmp_path: Path, here: Accelerator) -> None:
    run_stopped_before(tmp_path, here, 7)
    with pytest.raises(ValueError, match="the checkpoint belongs to seed 11, not 12"):
        fit(regression(), ASKED, seed=12, scratch=tmp_path, accelerator=here)


@pytest.mark.parametrize("lost", ["parameter/a.weight", "exp_avg/b.bias", "exp_avg_sq/c.weight", "step/a.bias",
                                  "average/a.weight"])  # fmt: skip
def test_a_checkpoint_without_one_of_its_parts_is_an_error_that_names_it(
    tmp_path: Path, here: Accelerator, lost: str
) -> None:
    run_stopped_before(tmp_path, here, 7)
    found = checkpoints.load(tmp_path)
    assert found is not None
    tensors, notes = found
    del tensors[lost]
    checkpoints.save(tmp_path, 6, tensors, {key: notes[key] for key in ("seed", "history", "running")})
    with pytest.raises(KeyError, match=lost):
        run(tmp_path, here)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_with_step_terms_and_names(
    tmp_path: Path, here: Accelerator, bad: float
) -> None:
    task = regression()
    step = -1

    def losses(batch: Sequence[Turn]) -> dict[str, Tensor]:
        nonlocal step
        step += 1
        terms = task.losses(batch)
        return {**terms, "picture": terms["picture"] * bad} if step == 7 else terms

    with pytest.raises(FloatingPointError) as caught:
        run(tmp_path, here, ASKED, Task(task.trainable, task.samples, losses))
    said = str(caught.value)
    names = ", ".join(task.samples[turn.sample] for turn in turns(SEED, 7, 4, SAMPLES))
    assert said.startswith("step 7: the loss is not finite (fit=0.")
    assert f"picture={bad:g})" in said
    assert said.endswith(f"batch: {names}")
    assert journal(tmp_path) == list(range(7))
    # what was computed before is kept, and the fault mended it goes on
    assert_equal_bits(run(tmp_path, here), run(tmp_path / "whole", here))


@pytest.mark.parametrize("at", [7, STEPS - 1])
def test_a_gradient_that_is_not_finite_stops_before_it_reaches_the_parameters(
    tmp_path: Path, here: Accelerator, at: int
) -> None:
    """The loss is finite; were the step done, the last one's damage would show nowhere."""
    task = regression()
    step = -1

    def losses(batch: Sequence[Turn]) -> dict[str, Tensor]:
        nonlocal step
        step += 1
        root = (task.trainable["a.bias"] * 0).abs().sqrt().sum()  # 0, with the gradient inf * 0
        return {**task.losses(batch), "root": root} if step == at else task.losses(batch)

    with pytest.raises(FloatingPointError, match=rf"step {at}: .*root=0.*norm=nan.*batch: work-"):
        run(tmp_path, here, ASKED, Task(task.trainable, task.samples, losses))
    assert all(torch.isfinite(value).all() for value in task.trainable.values())
    assert_equal_bits(run(tmp_path, here), run(tmp_path / "whole", here))


def test_learning_rate_warms_up_then_falls_to_a_thirtieth() -> None:
    asked = changed(steps=100, learning_rate=0.3, warmup=4)
    values = [learning_rate(asked, step) for step in range(100)]
    for step, share in enumerate([0.25, 0.5, 0.75, 1.0, 1.0]):
        cosine = 0.5 * (1 + math.cos(math.pi * step / 100))
        assert values[step] == pytest.approx(0.3 * share * (1 / 30 + 29 / 30 * cosine), rel=1e-12)
    assert values[50] == pytest.approx(0.3 * (1 / 30 + 29 / 60), rel=1e-12)
    assert values[4:] == sorted(values[4:], reverse=True)
    assert learning_rate(asked, 100) == pytest.approx(0.01, rel=1e-12)
    assert learning_rate(asked, 10**6) == learning_rate(asked, 100)


def test_learning_rate_constant_and_without_warm_up() -> None:
    asked = changed(decay="constant", learning_rate=0.3, warmup=2)
    assert [learning_rate(asked, step) for step in range(4)] == [0.15, 0.3, 0.3, 0.3]
    assert learning_rate(changed(decay="constant", learning_rate=0.3, warmup=0), 0) == 0.3
    assert learning_rate(changed(learning_rate=0.3, warmup=0), 0) == 0.3


def test_the_rate_reaches_the_optimiser_and_the_history(tmp_path: Path, here: Accelerator) -> None:
    """AdamW's first step moves every parameter by the rate."""
    asked = changed(steps=1, ema=0, weight_decay=0.0, warmup=0, clip=1e6)
    start = regression().trainable
    ended, history = run(tmp_path, here, asked)
    moved = (ended["b.bias"] - start["b.bias"]).abs()
    assert_close(moved, torch.full_like(moved, 0.05), relative=1e-3, absolute=0)
    assert list(history["learning_rate"]) == [learning_rate(asked, 0)]


def test_steps_agree_with_a_loop_written_out(tmp_path: Path, here: Accelerator) -> None:
    """No accelerator, no checkpoints: AdamW, clipping and the average as their papers have them, dropout's seed."""
    ours, history = run(tmp_path, here)
    task = regression()
    names = sorted(task.trainable)
    optimiser = torch.optim.AdamW([task.trainable[n] for n in names], lr=1.0, betas=(0.9, 0.99), weight_decay=0.01)
    average = {name: task.trainable[name].detach().double() for name in names}
    lost = []
    for step in range(STEPS):
        torch.manual_seed(seed_of(SEED, "step", step))
        optimiser.zero_grad()
        terms = task.losses(turns(SEED, step, 4, SAMPLES))
        sum(terms.values(), torch.zeros(())).backward()
        norm = math.sqrt(sum(float(task.trainable[n].grad.square().sum()) for n in names))
        for name in names:
            task.trainable[name].grad *= min(1.0, 1.0 / norm)
        optimiser.param_groups[0]["lr"] = learning_rate(ASKED, step)
        optimiser.step()
        keep = min(0.5 ** (1 / 2.5), (1 + step) / (10 + step))
        average = {n: keep * average[n] + (1 - keep) * task.trainable[n].detach().double() for n in names}
        lost.append({name: float(term.detach()) for name, term in terms.items()})
    for name in names:
        assert_close(ours[name], average[name])
    pd.testing.assert_frame_equal(history[["fit", "picture"]], pd.DataFrame(lost), rtol=1e-4)


def test_history_averages_over_its_interval(tmp_path: Path, here: Accelerator, monkeypatch: pytest.MonkeyPatch) -> None:
    each = run(tmp_path / "each", here)[1]
    monkeypatch.setattr("atelier.training.loop.LOG_POINTS", 4)
    some = run(tmp_path / "some", here)[1]
    assert list(some["step"]) == [5, 10, 15, 20, 23]
    for at, row in some.iterrows():
        part = each.iloc[5 * int(str(at)) : int(row["step"])]
        assert row["fit"] == pytest.approx(part["fit"].mean(), rel=1e-12)


def test_a_half_life_is_one() -> None:
    """Old values weigh half after so many steps, once the run is old enough."""
    _, (average,) = moving.started({"w": nn.Parameter(torch.ones(1))}, ["w"], 0.0, {40.0: {}})
    for step in range(40):
        average.update({"w": nn.Parameter(torch.zeros(1))}, step)
    assert float(average.values["w"]) == pytest.approx(0.5, rel=1e-4)


def test_several_processes_are_refused_by_a_task_that_does_not_say_that_its_terms_are_means(
    tmp_path: Path, here: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "ranks", lambda: 2)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(machine, "join", lambda cpu: None)
    with pytest.raises(ValueError, match="this training's loss is no mean over its samples"):
        run(tmp_path, here)


# ------------------------------------------------------------------------------------------------ several averages

HALF_LIVES = (1.0, 4.0, 64.0)
Kept = dict[float, dict[str, Tensor]]


def run_averaged(folder: Path, here: Accelerator, asked: Optimisation, task: Task | None = None) -> tuple[Kept, Task]:
    task, averages = task or regression(), {half_life: {} for half_life in HALF_LIVES}  # type: ignore[var-annotated]
    fit(task, asked, seed=SEED, scratch=folder, accelerator=here, averages=averages)
    return averages, task


def distances(kept: Kept, start: dict[str, Tensor]) -> list[float]:
    """How far each average has gone from the start."""
    return [
        math.sqrt(sum(float((value - start[name]).detach().square().sum()) for name, value in kept[half_life].items()))
        for half_life in HALF_LIVES
    ]


@pytest.mark.parametrize("ema", [0.0, 2.5])
def test_averages_are_their_recurrence(tmp_path: Path, here: Accelerator, ema: float) -> None:
    """From the start on, without a warm-up, whatever the average that takes the parameters' place does."""
    task = regression()
    expected = {h: {name: p.detach().double() for name, p in task.trainable.items()} for h in HALF_LIVES}
    losses, seen = task.losses, 0

    def noted(batch: Sequence[Turn]) -> dict[str, Tensor]:
        """The parameters that a step is given are those that the one before left."""
        nonlocal seen
        if seen:
            add(task)
        seen += 1
        return losses(batch)

    def add(task: Task) -> None:
        for half_life, kept in expected.items():
            keep = 0.5 ** (1 / half_life)
            for name, parameter in task.trainable.items():
                kept[name] = keep * kept[name] + (1 - keep) * parameter.detach().double()

    averages, _ = run_averaged(tmp_path, here, changed(ema=0.0), Task(task.trainable, task.samples, noted))
    add(task)
    assert seen == STEPS
    for half_life in HALF_LIVES:
        for name, value in averages[half_life].items():
            assert_close(value, expected[half_life][name], relative=1e-5, absolute=1e-7)
    again, _ = run_averaged(tmp_path / "again", here, changed(ema=ema))
    for half_life in HALF_LIVES:
        assert all(torch.equal(value, averages[half_life][name]) for name, value in again[half_life].items())


def test_averages_differ_however_short_the_run_is(tmp_path: Path, here: Accelerator) -> None:
    start = {name: value.detach().clone() for name, value in regression().trainable.items()}
    for steps in (1, 6):
        averages, task = run_averaged(tmp_path / str(steps), here, changed(steps=steps, ema=0.0))
        assert list(averages) == list(HALF_LIVES)
        gone = distances(averages, start)
        ended = math.sqrt(sum(float((v - start[n]).detach().square().sum()) for n, v in task.trainable.items()))
        assert ended > gone[0] > 1.3 * gone[1] > 1.3**2 * gone[2] > 0
    assert not any(value.requires_grad for kept in averages.values() for value in kept.values())


def test_averages_change_nothing_of_the_run(tmp_path: Path, here: Accelerator) -> None:
    whole, _ = run(tmp_path / "whole", here)
    _, task = run_averaged(tmp_path / "averaged", here, ASKED)
    assert all(torch.equal(value, whole[name]) for name, value in task.trainable.items())


@pytest.mark.parametrize("cut", [0, 3, 5, 12, STEPS - 1])
def test_averages_survive_a_kill(tmp_path: Path, here: Accelerator, cut: int) -> None:
    whole, _ = run_averaged(tmp_path / "whole", here, ASKED)

    def stop(now: int) -> None:
        if now == cut:
            raise Killed

    with pytest.raises(Killed):
        run_averaged(tmp_path / "cut", here, ASKED, regression(stop))
    for _ in range(2):  # once resumed, once read again of a finished run
        resumed, _ = run_averaged(tmp_path / "cut", here, ASKED)
        for half_life, kept in whole.items():
            assert all(torch.equal(value, resumed[half_life][name]) for name, value in kept.items())


def test_a_checkpoint_without_an_average_is_an_error_that_names_it(tmp_path: Path, here: Accelerator) -> None:
    run_stopped_before(tmp_path, here, 7)
    with pytest.raises(KeyError, match=r"average-1/a\.bias"):
        run_averaged(tmp_path, here, ASKED)


# ------------------------------------------------------------------------------------------------ what ends a run


def watched(folder: Path, here: Accelerator, most: float, cut: int | None = None) -> tuple[Watch, Task, pd.DataFrame]:
    """A run that ends once a parameter has gone this far, looked at every fifth step; ``cut``: killed before."""

    def stop(now: int) -> None:
        if now == cut:
            raise Killed

    task = regression(stop)
    start = task.trainable["a.weight"].detach().clone()

    def look() -> dict[str, float]:
        return {"gone": float((task.trainable["a.weight"].detach() - start).norm())}

    watch = Watch(look, lambda row: row["gone"] > most)
    history = fit(task, ASKED, seed=SEED, scratch=folder, accelerator=here, watch=watch)
    return watch, task, history


def test_a_watch_that_is_never_enough_changes_nothing(tmp_path: Path, here: Accelerator) -> None:
    watch, task, history = watched(tmp_path / "watched", here, math.inf)
    assert_equal_bits((dict(task.trainable), history), run(tmp_path / "alone", here))
    assert [row["step"] for row in watch.rows] == [0, 5, 10, 15, 20, STEPS]
    assert watch.rows[0]["gone"] == 0 < watch.rows[-1]["gone"]
    assert watch.stopped is None


def test_a_run_ends_at_the_first_checkpoint_that_is_enough(tmp_path: Path, here: Accelerator) -> None:
    gone = [row["gone"] for row in watched(tmp_path / "whole", here, math.inf)[0].rows]
    assert gone == sorted(gone)
    watch, _, history = watched(tmp_path / "ended", here, (gone[2] + gone[1]) / 2)
    assert watch.stopped == 10
    assert [row["step"] for row in watch.rows] == [0, 5, 10]
    assert journal(tmp_path / "ended") == list(range(10))
    assert list(history["step"]) == list(range(1, 11))
    again, *_ = watched(tmp_path / "ended", here, (gone[2] + gone[1]) / 2)  # nothing is left to do
    assert again.rows == watch.rows
    assert journal(tmp_path / "ended") == list(range(10))


@pytest.mark.parametrize("cut", [0, 3, 7, 9])
def test_a_killed_run_ends_where_an_uninterrupted_one_does(tmp_path: Path, here: Accelerator, cut: int) -> None:
    gone = [row["gone"] for row in watched(tmp_path / "whole", here, math.inf)[0].rows]
    most = (gone[2] + gone[1]) / 2
    watch, task, history = watched(tmp_path / "ended", here, most)
    with pytest.raises(Killed):
        watched(tmp_path / "cut", here, most, cut)
    # a resumed process begins with other parameters than the run did, and is told what was seen
    task_again = regression()
    start = regression().trainable["a.weight"].detach().clone()
    again = Watch(
        lambda: {"gone": float((task_again.trainable["a.weight"].detach() - start).norm())}, lambda r: r["gone"] > most
    )
    rows = fit(task_again, ASKED, seed=SEED, scratch=tmp_path / "cut", accelerator=here, watch=again)
    assert again.rows == watch.rows
    assert_equal_bits((dict(task_again.trainable), rows), (dict(task.trainable), history))


def test_an_interval_that_a_stop_cuts_short_is_in_the_history(
    tmp_path: Path, here: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atelier.training.loop.LOG_POINTS", 3)  # every 7 steps
    watch, _, history = watched(tmp_path, here, 0.0)
    assert watch.stopped == 5
    assert list(history["step"]) == [5]


def test_a_term_without_a_graph_is_recorded_and_teaches_nothing(tmp_path: Path, here: Accelerator) -> None:
    task = regression()

    def losses(batch: Sequence[Turn]) -> dict[str, Tensor]:
        terms = task.losses(batch)
        return {**terms, "seen": terms["fit"].detach() * 100}

    told = Task(task.trainable, task.samples, losses)
    parameters, history = run(tmp_path / "told", here, task=told)
    plain, rows = run(tmp_path / "plain", here)
    assert all(torch.equal(value, plain[name]) for name, value in parameters.items())
    pd.testing.assert_frame_equal(history.drop(columns="seen"), rows, check_exact=True)
    assert list(history["seen"]) == pytest.approx(list(100 * rows["fit"]), rel=1e-5)
