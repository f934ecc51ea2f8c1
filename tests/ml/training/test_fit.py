"""Training by effect: reproducible, learns planted patterns, returns the average of the steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ml.training.fit
import ml.training.item_task
from engine.engine import Engine
from ml.evaluation.metrics import evaluate
from ml.evaluation.model_lists import baseline_lists, trained_lists
from ml.evaluation.model_names import ModelName
from ml.evaluation.queries import EvaluationSet, future_queries
from ml.examples.context import no_context, subject_context
from ml.examples.period import Prepared, TrainingPeriod, examples_of_frame, examples_to_frame, prepare, whole_log
from ml.features.event_log import Slices
from ml.models.batched_forward import embed_items, embed_users, encode_states
from ml.models.item_model import TwoTower
from ml.models.tensors import CatalogueTensors
from ml.training.checkpoints import last_checkpoint
from ml.training.fit import Fit, RetrievalModule, fit, training_loss
from ml.training.item_task import ItemTask, new_network
from ml.training.sampling import SampledBatch
from settings import ContextRecipe, Settings, UserEncoder
from tests.ml.conftest import TRAINED_UNTIL
from tests.ml.together import InThisProcess
from tests.ml.toy_task import ToyTask
from tests.ml.worlds import EVENT_NAMES, Event, event_frame, instant, item_frame, rule, small_settings, user_frame


def asked_after(period: TrainingPeriod, prepared: Prepared, settings: Settings) -> EvaluationSet:
    """The conversions of the window after ``TRAINED_UNTIL``."""
    queries, dataset = future_queries(
        prepared.dataset,
        whole_log(period, settings),
        instant(TRAINED_UNTIL),
        rule=period.rule,
        maximum=10_000,
        seed=0,
        only_candidates=True,
    )
    return EvaluationSet(dataset, queries, prepared.dataset.log, period.rule.window_days)


def recall(asked: EvaluationSet, lists: Any, k: int = 10) -> float:
    return evaluate(lists, asked.queries.positives, len(asked.queries.candidates), ks=[k]).recall[k]


def weights_of(fitted: Fit[TwoTower]) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in fitted.network.state_dict().items()}


def short_fit(period: TrainingPeriod, prepared: Prepared, directory: Path, seed: int = 0) -> Fit[TwoTower]:
    settings = small_settings(
        training={"batch_size": 128, "corpus_negatives": 32, "seed": seed}, model={"width": 16, "heads": 2, "layers": 1}
    )  # dropout and content dropout are on: they follow the seed too
    return fit(ItemTask.of(period, prepared, settings), 2, directory)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights(period: TrainingPeriod, prepared: Prepared, tmp_path: Path) -> None:
    first, again, other = (
        weights_of(short_fit(period, prepared, tmp_path / str(number), seed)) for number, seed in enumerate((0, 0, 1))
    )
    for name, value in first.items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=0, msg=name)
    assert any(not torch.equal(other[name], value) for name, value in first.items())


def mean_loss(network: TwoTower, prepared: Prepared, settings: Settings) -> float:
    task = ItemTask(prepared, settings, 15.0)
    with torch.inference_mode():
        losses = [training_loss(task, network, batch) for batch in task.batches()]
    return float(torch.stack(losses).mean())


def test_the_loss_falls_and_every_part_of_the_model_learns(
    prepared: Prepared, trained: Fit[TwoTower], settings: Settings
) -> None:
    untrained = new_network(prepared.dataset, settings).eval()
    assert mean_loss(trained.network, prepared, settings) < 0.8 * mean_loss(untrained, prepared, settings)
    before = dict(untrained.named_parameters())
    for name, parameter in trained.network.named_parameters():
        assert not torch.equal(parameter, before[name]), f"{name} has not moved"


def alikeness(network: TwoTower, prepared: Prepared) -> float:
    """The mean cosine of two items in the learned part of their embeddings."""
    dataset = prepared.dataset
    items = embed_items(network, CatalogueTensors(dataset.features), dataset.statistics.at(dataset.log.end))
    learned = items[:, : network.encoder.layout.width]
    learned /= np.linalg.norm(learned, axis=1, keepdims=True)
    return float(np.square(learned.mean(axis=0)).sum())


def test_the_level_of_the_statistics_does_not_make_all_items_alike(prepared: Prepared, settings: Settings) -> None:
    """Raw log counts are longer than all else that is known of an item: its learned part would begin as one vector."""
    network = new_network(prepared.dataset, settings).eval()
    standardised = alikeness(network, prepared)
    network.item_tower.standardise.mean.zero_()
    network.item_tower.standardise.scale.fill_(1.0)
    raw = alikeness(network, prepared)
    assert standardised < 0.7 < 0.9 < raw


def test_a_history_that_tells_the_future_beats_popularity(
    period: TrainingPeriod, prepared: Prepared, trained: Fit[TwoTower], settings: Settings
) -> None:
    asked = asked_after(period, prepared, settings)
    popularity = recall(asked, baseline_lists(ModelName.popularity, asked, 100))
    assert recall(asked, trained_lists(trained.network, asked, settings, 100)) > 2 * popularity


def test_a_planted_context_is_used(
    period: TrainingPeriod, prepared: Prepared, trained: Fit[TwoTower], settings: Settings
) -> None:
    """Users without any history, looking at an item: its kind is the best guess."""
    asked = asked_after(period, prepared, settings)
    count = len(asked.queries)
    kind = np.arange(count) % 12
    queries = replace(
        asked.queries, user=np.full(count, -1), context=subject_context(kind * 20, prepared.dataset.features)
    )
    lists = trained_lists(trained.network, replace(asked, queries=queries), settings, 10)
    shown = asked.queries.candidates[lists.items] // 20
    assert (shown == kind[:, None]).mean() > 2 / 12  # twice what chance gives


@dataclass
class Script:
    """Scripted validation recalls, and the weights at each of them."""

    recalls: list[float]
    weights: list[dict[str, torch.Tensor]]
    modes: list[bool]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Validation says what the script says."""
    script = Script([], [], [])

    def lists(network: torch.nn.Module, *_: Any) -> None:
        network.eval()  # as the real one does
        script.weights.append({name: value.clone() for name, value in network.state_dict().items()})

    def scripted(*_: Any, **__: Any) -> Any:
        value = script.recalls[len(script.weights) - 1]
        return type("Scripted", (), {"recall": {10: value, 100: value}, "diversity90": 0.5})

    def loss(task: ItemTask, network: TwoTower, batch: SampledBatch[Any]) -> torch.Tensor:
        script.modes.append(network.training)
        return training_loss(task, network, batch)

    monkeypatch.setattr(ml.training.item_task, "trained_lists", lists)
    monkeypatch.setattr(ml.training.item_task, "evaluate", scripted)
    monkeypatch.setattr(ml.training.fit, "training_loss", loss)
    return script


@pytest.mark.slow
def test_validation_sees_the_network_that_is_returned_and_changes_nothing(
    period: TrainingPeriod, prepared: Prepared, settings: Settings, tmp_path: Path, script: Script
) -> None:
    asked = asked_after(period, prepared, settings)
    script.recalls = [0.125, 0.5, 0.25]
    validated = fit(ItemTask.of(period, prepared, settings, asked), 3, tmp_path / "validated")
    assert (validated.epochs, validated.validation, validated.metric) == (3, 0.25, "validation_recall_at_100")
    assert len(script.weights) == 3
    assert all(script.modes)  # validation must not leave dropout off for the rest of the training
    for epochs in (2, 3):  # the network after an epoch does not depend on how many are to come
        given = fit(ItemTask.of(period, prepared, settings), epochs, tmp_path / str(epochs))
        for name, value in given.network.state_dict().items():
            torch.testing.assert_close(value, script.weights[epochs - 1][name], rtol=0, atol=0, msg=name)


@pytest.mark.slow
def test_the_network_is_the_average_of_the_steps_that_weighs_newer_ones_more(
    period: TrainingPeriod, prepared: Prepared, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weight of step t of n is 9 t (t + 1) ... (t + 7) / (n (n + 1) ... (n + 8)), about 9 t^8 / n^9."""
    steps: list[torch.Tensor] = []

    def spy(task: ItemTask, network: TwoTower, batch: SampledBatch[Any]) -> torch.Tensor:
        steps.append(network.head.shortcut.weight.detach().clone())
        return training_loss(task, network, batch)

    monkeypatch.setattr(ml.training.fit, "training_loss", spy)
    two = fit(ItemTask.of(period, prepared, settings), 2, tmp_path / "two").network.head.shortcut.weight
    fit(ItemTask.of(period, prepared, settings), 3, tmp_path / "three")
    count = len(ItemTask.of(period, prepared, settings).batches()) * 2
    after = steps[count + 1 :][:count]  # of the longer fit, which has the same steps: the weights after each of them
    weights = np.array([np.prod(np.arange(t, t + 8.0)) for t in range(1, count + 1)])
    expected = sum(float(weight) * step for weight, step in zip(weights / weights.sum(), after, strict=True))
    torch.testing.assert_close(two, expected, rtol=1e-4, atol=1e-6)


def test_without_validation_all_epochs_count(trained: Fit[TwoTower]) -> None:
    assert trained.epochs == 6
    assert np.isnan(trained.validation)
    assert 0 <= trained.waiting_share < 1
    assert trained.sequences_per_second > 0


@pytest.mark.slow
def test_every_epoch_is_shuffled_anew(
    period: TrainingPeriod, prepared: Prepared, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []

    def spy(task: ItemTask, network: TwoTower, batch: SampledBatch[Any]) -> torch.Tensor:
        seen.append(batch.candidate_rows.tolist())
        return training_loss(task, network, batch)

    monkeypatch.setattr(ml.training.fit, "training_loss", spy)
    fit(ItemTask.of(period, prepared, settings), 3, tmp_path)
    assert len({tuple(rows) for rows in seen}) == len(seen)


@dataclass
class Killed:
    """Kills a fit in the step after so many."""

    steps: int
    at: int

    def __call__(self, *arguments: Any) -> torch.Tensor:
        self.steps += 1
        if self.steps > self.at:
            raise KilledFit
        return training_loss(*arguments)


class KilledFit(Exception):
    """The process is gone."""


@pytest.mark.slow
@pytest.mark.parametrize("validated", [False, True])
def test_a_fit_resumed_at_an_epochs_end_equals_one_that_was_not_interrupted(
    period: TrainingPeriod, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, validated: bool
) -> None:
    """Dropout and content dropout are on: they come from the random states, the batches from the number of the epoch.
    The interruption is in the middle of the second epoch of three."""
    settings = small_settings(
        training={"batch_size": 128, "corpus_negatives": 32}, model={"width": 16, "heads": 2, "layers": 1}
    )
    task = ItemTask(prepared, settings, 15.0, asked_after(period, prepared, settings) if validated else None)

    def fitted(directory: Path, resume: Path | None = None) -> Fit[TwoTower]:
        return fit(task, 3, directory, resume=resume)

    whole = fitted(tmp_path / "whole")
    steps = len(task.batches())
    with monkeypatch.context() as patched:
        patched.setattr(ml.training.fit, "training_loss", Killed(0, steps + steps // 2))
        with pytest.raises(KilledFit):
            fitted(tmp_path / "parts")
    torch.manual_seed(99)
    resumed = fitted(tmp_path / "parts", last_checkpoint(tmp_path / "parts"))
    behind_the_end = fitted(tmp_path / "whole", last_checkpoint(tmp_path / "whole"))
    for again in (resumed, behind_the_end):
        assert (again.epochs, str(again.validation)) == (whole.epochs, str(whole.validation))
        for name, value in whole.network.state_dict().items():
            torch.testing.assert_close(again.network.state_dict()[name], value, rtol=0, atol=0, msg=name)


@pytest.mark.slow
def test_a_fit_is_resumed_from_its_own_checkpoint_only(
    period: TrainingPeriod, prepared: Prepared, settings: Settings, tmp_path: Path
) -> None:
    def resumed(epochs: int, engine: Engine | None = None, **training: float) -> Fit[TwoTower]:
        changed = settings.model_copy(update={"training": settings.training.model_copy(update=training)})
        checkpoint = last_checkpoint(tmp_path)
        return fit(ItemTask(prepared, changed, 15.0), epochs, tmp_path, resume=checkpoint, engine=engine)

    with pytest.raises(FileNotFoundError, match=r"no checkpoint to resume from at .*last\.ckpt"):
        resumed(1)
    fit(ItemTask(prepared, settings, 15.0), 1, tmp_path)
    with pytest.raises(ValueError, match=r"training\.learning_rate 0\.01 \(now 0\.5\)"):
        resumed(1, learning_rate=0.5)
    with pytest.raises(ValueError, match=r"training\.processes 1 \(now 2\)"):
        resumed(2, processes=2, engine=InThisProcess())
    with pytest.raises(ValueError, match=r"training\.batch_size 128 \(now 32\), warm_up_steps \d+ \(now \d+\)"):
        resumed(2, batch_size=32)


def test_a_checkpoint_of_a_machine_with_a_gpu_is_read_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
    fitted = fit(ToyTask(small_settings()), 1, tmp_path, progress=False)
    assert fitted.network.users.weight.device.type == "cpu"


def test_nothing_to_learn_from_is_said(prepared: Prepared, settings: Settings, tmp_path: Path) -> None:
    none = prepared.examples.take(np.zeros(0, np.int64))
    with pytest.raises(ValueError, match=r"no training example.*positive_events"):
        fit(ItemTask(replace(prepared, examples=none), settings, 5.0), 1, tmp_path)


def test_examples_survive_the_table(period: TrainingPeriod, prepared: Prepared, settings: Settings) -> None:
    frame = examples_to_frame(prepared, EVENT_NAMES)
    again = examples_of_frame(period.until(instant(TRAINED_UNTIL)), frame.sample(fraction=1, shuffle=True), settings)
    np.testing.assert_array_equal(again.subjects, prepared.subjects)
    for name in ("cutoff", "user", "history_end", "item", "weight", "name"):
        np.testing.assert_allclose(getattr(again.examples, name), getattr(prepared.examples, name), rtol=0, atol=1e-6)


def order_period(users: int, seed: int = 0) -> TrainingPeriod:
    """Users see `left` and `right` once each; who sees `left` last buys `x`, the others buy `y`."""
    random = np.random.default_rng(seed)
    rows: list[Event] = []
    for number in range(users):
        left_last = number % 2 == 0
        day = float(random.uniform(0, 30))
        first, second = ("right", "left") if left_last else ("left", "right")
        rows += [
            (f"u{number:03d}", day, "page_visit", first),
            (f"u{number:03d}", day + 0.1, "page_visit", second),
            (f"u{number:03d}", day + 5, "checkout", "x" if left_last else "y"),
        ]
    items = item_frame(["left", "right", "x", "y"], advertiser_id=["l", "r", "x", "y"], embedding=np.eye(4, 4).tolist())
    return TrainingPeriod(
        event_frame(rows), items, user_frame([f"u{n:03d}" for n in range(users)]), instant(40), rule(10.0), EVENT_NAMES
    )


def order_share(encoder: UserEncoder, directory: Path) -> float:
    """The share of new users for whom the right one of x and y ranks higher."""
    settings = small_settings(
        model={"encoder": encoder, "width": 16, "heads": 2, "layers": 1, "dropout": 0.0, "content_dropout": 0.0},
        context={"recipe": ContextRecipe.none},
        examples={"cutoffs": 12},
        training={"batch_size": 64, "corpus_negatives": 8, "learning_rate": 5e-3},
    )
    period = order_period(200)
    prepared = prepare(period, settings)
    fitted = fit(ItemTask.of(period, prepared, settings), 12, directory)
    other = order_period(200, seed=1)
    log = whole_log(other, settings)
    catalogue = CatalogueTensors(prepared.dataset.features)
    slices = Slices(log.offsets[:-1], log.offsets[:-1] + 2)
    states = encode_states(fitted.network, catalogue, log, slices=slices, settings=settings.inference)
    users = embed_users(
        fitted.network, catalogue, states, context=no_context(200, 4), demographics=np.zeros((200, 3), np.int64)
    )
    items = embed_items(fitted.network, catalogue, prepared.dataset.statistics.at(instant(30)))
    scores = users @ items.T
    return float(((scores[:, 2] > scores[:, 3]) == (np.arange(200) % 2 == 0)).mean())


@pytest.mark.slow
def test_the_transformer_learns_order(tmp_path: Path) -> None:
    assert order_share(UserEncoder.transformer, tmp_path) > 0.95


@pytest.mark.parametrize("warm_up", [1, 2, 20])
def test_the_learning_rate_rises_and_then_stays(prepared: Prepared, settings: Settings, warm_up: int) -> None:
    task, full = ItemTask(prepared, settings, 15.0), settings.training.learning_rate
    configured = RetrievalModule(task, task.network(), warm_up).configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(50):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([full * min(1, step / warm_up) for step in range(1, 51)])
