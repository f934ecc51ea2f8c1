"""What the towers may depend on, and what they must not."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ml.examples.context import Context, no_context, subject_context
from ml.examples.period import Prepared
from ml.features.event_log import Slices, newest, pack
from ml.models.batched_forward import embed_items, embed_users, encode_states
from ml.models.blocks import LOG_LENGTH_BOUND, Dropout, Standardise, parts_by_lengths
from ml.models.encoders import EventBatch, SequenceBounds, TransformerEncoder
from ml.models.item_model import TwoTower
from ml.models.tensors import CatalogueTensors
from ml.training.item_task import new_network
from settings import InferenceSettings, UserEncoder
from tests.ml.worlds import instant, small_settings

ENCODERS = list(UserEncoder)


def network_of(prepared: Prepared, encoder: UserEncoder, **model: float | str) -> TwoTower:
    """A network whose every weight is random: none is at an initial value that hides an effect."""
    settings = small_settings(model={"encoder": encoder, "width": 16, "layers": 2, "heads": 2, **model})
    network = new_network(prepared.dataset, settings).eval()
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random), alpha=0.2)
        for table in (network.item_tower.shared.category, network.item_tower.shared.advertiser):
            table.weight[0] = 0
    return network


def histories(prepared: Prepared, length: int = 12) -> Slices:
    """One sequence a user, of 0 to ``length`` events."""
    log = prepared.dataset.log
    ends = log.offsets[:-1] + np.minimum(np.arange(log.users) % (length + 1), np.diff(log.offsets))
    return newest(log, np.arange(log.users), ends, length)


def states(network: TwoTower, prepared: Prepared, slices: Slices, tokens: int = 4096) -> NDArray[np.float32]:
    catalogue = CatalogueTensors(prepared.dataset.features)
    return encode_states(
        network, catalogue, prepared.dataset.log, slices=slices, settings=InferenceSettings(batch_tokens=tokens)
    )


def event_batch(prepared: Prepared, slices: Slices) -> EventBatch:
    return CatalogueTensors(prepared.dataset.features).events(pack(prepared.dataset.log, slices))


def reordered(events: EventBatch, order: Tensor) -> EventBatch:
    """The same events, each with all its own features, in another order."""
    names = ("distinct_item", "name", "gap", "recency")
    return dataclasses.replace(events, **{name: getattr(events, name)[order] for name in names})


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_state_depends_on_no_other_user(prepared: Prepared, encoder: UserEncoder) -> None:
    network, slices = network_of(prepared, encoder), histories(prepared)
    together = states(network, prepared, slices)
    alone = states(network, prepared, slices, tokens=1)
    mixed = np.concatenate([states(network, prepared, slices.take(np.array([row, 11, 12]))) for row in range(13)])[::3]
    assert np.abs(together).max() > 0.1
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together[:13], mixed, atol=1e-5)


@pytest.mark.parametrize("encoder", ENCODERS)
@torch.inference_mode()
def test_a_state_depends_neither_on_the_place_of_its_sequence_nor_on_shared_features(
    prepared: Prepared, encoder: UserEncoder
) -> None:
    """Also where neighbours differ in length, and where each event has an entry of its own for its item."""
    network, slices = network_of(prepared, encoder), histories(prepared)
    by_length = event_batch(prepared, slices.take(np.argsort(slices.lengths, kind="stable")))
    found = network.encoder(event_batch(prepared, slices))
    torch.testing.assert_close(
        found[np.argsort(slices.lengths, kind="stable")], network.encoder(by_length), atol=1e-5, rtol=0
    )
    names = ("content", "category", "price", "advertiser")
    apart = {name: getattr(by_length, name)[by_length.distinct_item] for name in names}
    each = dataclasses.replace(by_length, **apart, distinct_item=torch.arange(len(by_length.distinct_item)))
    torch.testing.assert_close(network.encoder(each), network.encoder(by_length), atol=1e-5, rtol=0)
    assert len(by_length.content) < len(by_length.distinct_item)


@torch.inference_mode()
def test_sums_means_and_newest_events_stay_within_their_sequence() -> None:
    """Lengths 2, 0, 3 of the events 1 2 | | 4 8 16."""
    nothing, hidden = torch.zeros(0), torch.tensor([[1.0], [2.0], [4.0], [8.0], [16.0]])
    packed = {field.name: nothing for field in dataclasses.fields(EventBatch)}
    sequences = SequenceBounds.of(EventBatch(**{**packed, "lengths": torch.tensor([2, 0, 3])}))
    assert sequences.runs == [(1, 2), (1, 0), (1, 3)]
    assert sequences.newest(hidden, 3)[:, :, 0].tolist() == [[2, 1, 0], [0, 0, 0], [16, 8, 4]]
    torch.testing.assert_close(sequences.mean(hidden)[:, 0], torch.tensor([1.5, 0, 28 / 3]))
    assert sequences.maximum(-hidden)[:, 0].tolist() == [-1, 0, -4]
    weights, values = torch.tensor([1.0, 2, 1, 1, 3]), torch.tensor([[10.0], [1.0]])
    assert sequences.sum(values, torch.tensor([0, 1, 0, 0, 1]), weights)[:, 0].tolist() == [12, 0, 23]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5])
def test_dropout_drops_the_share_and_keeps_the_mean_in_every_place_of_a_word(share: float) -> None:
    layer, values = Dropout(share), torch.ones(40_000, 8)
    torch.manual_seed(0)
    dropped = layer(values)
    np.testing.assert_allclose((dropped == 0).float().mean(0).numpy(), share, atol=0.012)
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    assert layer(torch.ones(3, 5)).shape == (3, 5)
    assert torch.equal(layer.eval()(values), values)
    torch.manual_seed(0)
    assert torch.equal(layer.train()(values), dropped)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_empty_history_is_a_zero_state_with_a_finite_embedding(prepared: Prepared, encoder: UserEncoder) -> None:
    network = network_of(prepared, encoder)
    empty = Slices(np.array([0, 0]), np.array([0, 4]))
    found = states(network, prepared, empty)
    alone = states(network, prepared, empty.take(np.array([0])))
    assert (found[0] == 0).all()
    assert (alone[0] == 0).all()
    assert (found[1] != 0).any()
    users = embed_users(
        network,
        CatalogueTensors(prepared.dataset.features),
        found,
        context=no_context(2, 4),
        demographics=np.zeros((2, 3), np.int64),
    )
    assert np.isfinite(users).all()
    assert (np.linalg.norm(users, axis=1) > 0).all()


@torch.inference_mode()
@pytest.mark.parametrize("pooled", [UserEncoder.mean_pooling, UserEncoder.max_pooling])
def test_pooling_ignores_the_order_of_positions_and_the_transformer_does_not(
    prepared: Prepared, pooled: UserEncoder
) -> None:
    full = Slices(np.array([0, 12]), np.array([12, 24]))
    events = event_batch(prepared, full)
    turned = reordered(events, torch.arange(24).view(2, 12).flip(1).flatten())
    pooling, transformer = (network_of(prepared, encoder).encoder for encoder in (pooled, UserEncoder.transformer))
    torch.testing.assert_close(pooling(turned), pooling(events), atol=1e-5, rtol=0)
    assert (transformer(turned) - transformer(events)).abs().max() > 0.1


@torch.inference_mode()
def test_the_transformer_looks_in_both_directions(prepared: Prepared) -> None:
    """The hidden state at the oldest event changes with the newest one, and the other way round."""
    encoder = network_of(prepared, UserEncoder.transformer).encoder.sequence
    assert isinstance(encoder, TransformerEncoder)
    events = event_batch(prepared, Slices(np.array([0]), np.array([6])))

    def hidden(changed_position: int | None) -> Tensor:
        embedded = encoder.embed(events)
        if changed_position is not None:
            embedded[changed_position] += torch.linspace(-1, 1, embedded.shape[-1])
        for block in encoder.blocks:
            embedded = block(embedded, [(1, 6)])
        return embedded

    before = hidden(None)
    assert (hidden(5)[0] - before[0]).abs().max() > 1e-3
    assert (hidden(0)[5] - before[5]).abs().max() > 1e-3


@pytest.mark.parametrize("field", ["content", "category", "price", "advertiser", "name", "gap", "recency"])
@pytest.mark.parametrize("encoder", ENCODERS)
@torch.inference_mode()
def test_a_state_depends_on_every_feature_of_an_event(prepared: Prepared, encoder: UserEncoder, field: str) -> None:
    network = network_of(prepared, encoder)
    events = event_batch(prepared, Slices(np.array([0]), np.array([6])))
    other = getattr(events, field).clone()
    place = (
        2
        if len(other) == len(events.distinct_item) and field in ("name", "gap", "recency")
        else int(events.distinct_item[2])
    )
    other[place] = (other[place] + 1) % 32 if other.dtype == torch.int64 else other[place] + 1
    changed = dataclasses.replace(events, **{field: other})
    difference = (network.encoder(changed) - network.encoder(events)).abs().max()
    if field in ("gap", "recency") and encoder is not UserEncoder.transformer:
        assert difference == 0  # the baselines know nothing of order
    else:
        assert difference > 1e-3


def test_an_item_has_unit_length_less_its_unknown_traits(prepared: Prepared) -> None:
    network, dataset = network_of(prepared, UserEncoder.transformer), prepared.dataset
    items = embed_items(network, CatalogueTensors(dataset.features), dataset.statistics.at(instant(50)))
    known = np.sum([trait.any(axis=1) for trait in traits_of(network, prepared)], axis=0)
    of_all = 1 + len(network.item_tower.traits.widths)
    np.testing.assert_allclose(np.linalg.norm(items, axis=1), ((1 + known) / of_all) ** 0.5, rtol=1e-5)
    assert len(np.unique(items.round(3), axis=0)) > 200


@torch.inference_mode()
def test_the_query_sets_the_length_of_each_part_by_itself(prepared: Prepared) -> None:
    network, dataset = network_of(prepared, UserEncoder.transformer), prepared.dataset
    catalogue, nobody = CatalogueTensors(dataset.features), np.zeros((1, 3), np.int64)
    state = states(network, prepared, Slices(np.array([12]), np.array([18])))

    def lengths() -> NDArray[np.float32]:
        parts = parts_of(network, embed_users(network, catalogue, state, context=no_context(1, 4), demographics=nobody))
        return np.array([np.linalg.norm(part) for part in parts])

    network.head.parts.weight.zero_()
    network.head.parts.bias.zero_()
    even, some = lengths(), lengths() > 0
    np.testing.assert_allclose(even[some], 5**-0.5 if len(even) == 5 else 4**-0.5, rtol=1e-5)
    network.head.parts.bias[1] = np.log(3)
    expected = even.copy()
    expected[1] *= 3
    np.testing.assert_allclose(lengths(), expected, rtol=1e-5)


def test_standardised_columns_count_alike_whatever_their_level() -> None:
    layer = Standardise(2)
    raw = torch.tensor([[10.0, 0.0], [12.0, 0.5], [14.0, 1.0]])
    assert torch.equal(layer(raw), raw)
    layer.learn(raw)
    # Means 12 and .5; deviations (8/3)^.5 and (1/6)^.5; each over the root of two columns.
    one = 1.5**0.5 / 2**0.5
    torch.testing.assert_close(layer(raw), torch.tensor([[-one, -one], [0.0, 0.0], [one, one]]))
    layer.learn(torch.tensor([[3.0, 1.0], [3.0, 1.001]]))
    torch.testing.assert_close(layer(torch.tensor([[3.0, 1.1]])).abs().max(), torch.tensor(0.0995 / 0.1 / 2**0.5))
    layer.learn(torch.zeros(0, 2))
    assert layer(raw).isfinite().all()


def test_an_item_embedding_depends_on_its_statistics_and_on_no_other_item(prepared: Prepared) -> None:
    network, dataset = network_of(prepared, UserEncoder.transformer), prepared.dataset
    catalogue, statistics = CatalogueTensors(dataset.features), dataset.statistics.at(instant(50))
    changed = statistics.copy()
    changed[7] += 1
    before, after = embed_items(network, catalogue, statistics), embed_items(network, catalogue, changed)
    moved = np.abs(after - before).max(axis=1)
    assert moved[7] > 1e-3
    assert np.delete(moved, 7).max() < 1e-6


def query_embeddings(prepared: Prepared, context: Context, content_of_nothing: float = 0.0) -> NDArray[np.float32]:
    """Embeddings of one user in several contexts; rows without an item show ``content_of_nothing``."""
    network = network_of(prepared, UserEncoder.transformer)
    catalogue = CatalogueTensors(prepared.dataset.features)
    catalogue.content[-1] = content_of_nothing
    state = np.repeat(states(network, prepared, Slices(np.array([0]), np.array([6]))), len(context), axis=0)
    return embed_users(network, catalogue, state, context=context, demographics=np.ones((len(context), 3), np.int64))


def test_absent_context_is_a_learned_vector_whatever_the_content_is(prepared: Prepared) -> None:
    absent = no_context(1, 4)
    np.testing.assert_array_equal(query_embeddings(prepared, absent), query_embeddings(prepared, absent, 5.0))
    network = network_of(prepared, UserEncoder.transformer)
    batch = CatalogueTensors(prepared.dataset.features).context(absent)
    torch.testing.assert_close(network.head.context(batch)[0], network.head.context.absent)


def test_different_subjects_give_different_queries(prepared: Prepared) -> None:
    subjects = subject_context(np.array([-1, 3, 130]), prepared.dataset.features)
    found = query_embeddings(prepared, subjects)
    assert np.abs(found[0] - found[1]).max() > 1e-2
    assert np.abs(found[1] - found[2]).max() > 1e-2


def test_demographics_reach_the_query(prepared: Prepared) -> None:
    network, catalogue = network_of(prepared, UserEncoder.transformer), CatalogueTensors(prepared.dataset.features)
    state = np.zeros((2, network.state_width), np.float32)
    found = embed_users(
        network, catalogue, state, context=no_context(2, 4), demographics=np.array([[0, 0, 0], [0, 0, 9]])
    )
    assert np.abs(found[0] - found[1]).max() > 1e-3


@pytest.mark.parametrize("encoder", ENCODERS)
def test_bfloat16_states_point_the_same_way(prepared: Prepared, encoder: UserEncoder) -> None:
    network, slices = network_of(prepared, encoder), histories(prepared)
    catalogue, log = CatalogueTensors(prepared.dataset.features), prepared.dataset.log
    exact = encode_states(network, catalogue, log, slices=slices, settings=InferenceSettings())
    rounded = encode_states(network, catalogue, log, slices=slices, settings=InferenceSettings(bfloat16=True))
    some = np.linalg.norm(exact, axis=1) > 0
    cosine = (exact[some] * rounded[some]).sum(1) / np.linalg.norm(exact[some], axis=1)
    cosine /= np.linalg.norm(rounded[some], axis=1)
    assert cosine.min() >= 0.999
    assert not np.array_equal(exact, rounded)
    assert (rounded[~some] == 0).all()


def test_the_temperature_stays_in_bounds(prepared: Prepared) -> None:
    network = new_network(prepared.dataset, small_settings())
    assert network.temperature.item() == pytest.approx(0.03)
    with torch.no_grad():
        network.log_temperature.fill_(-20)
    assert network.temperature.item() == pytest.approx(0.01)


def traits_of(network: TwoTower, prepared: Prepared) -> list[NDArray[np.float32]]:
    """The traits of the catalogue, a matrix a kind."""
    features = prepared.dataset.features
    traits = network.item_tower.traits
    values = (torch.from_numpy(each) for each in (features.content, features.category, features.advertiser))
    return [part.numpy() for part in torch.split(traits(*values), traits.widths, dim=1)]


def parts_of(network: TwoTower, embeddings: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Embeddings in their parts: the learned one, then the traits."""
    *parts, _ = np.split(embeddings, np.cumsum([*network.parts.values()])[:-1], axis=1)
    return parts


def cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@torch.inference_mode()
def test_a_memory_part_is_the_neighbourhood_score_of_the_history(prepared: Prepared) -> None:
    """With even weights: the cosine of an item's trait with the mean trait of the history, whatever is learned."""
    network, dataset = network_of(prepared, UserEncoder.transformer), prepared.dataset
    for parameter in network.encoder.memory.score.parameters():
        parameter.zero_()
    slices, catalogue = Slices(np.array([12]), np.array([18])), CatalogueTensors(dataset.features)
    found = states(network, prepared, slices)
    users = parts_of(
        network,
        embed_users(network, catalogue, found, context=no_context(1, 4), demographics=np.zeros((1, 3), np.int64)),
    )
    items = parts_of(network, embed_items(network, catalogue, dataset.statistics.at(instant(50))))
    traits, events = network.encoder.traits, event_batch(prepared, slices)
    of_history = traits(events.content, events.category, events.advertiser)[events.distinct_item].mean(dim=0)
    engaged = [part.numpy() for part in torch.split(of_history, traits.widths)]
    for user, item, trait, history in zip(users[1:], items[1:], traits_of(network, prepared), engaged, strict=True):
        known = np.flatnonzero(trait.any(axis=1) & history.any())
        expected = [cosine(trait[row], history) for row in known]
        np.testing.assert_allclose([cosine(item[row], user[0]) for row in known], expected, atol=1e-5)


@torch.inference_mode()
def test_the_memory_turns_to_what_is_looked_at_as_far_as_the_gate_opens(prepared: Prepared) -> None:
    network, dataset = network_of(prepared, UserEncoder.transformer), prepared.dataset
    catalogue, nobody = CatalogueTensors(dataset.features), np.zeros((2, 3), np.int64)
    state = np.repeat(states(network, prepared, Slices(np.array([12]), np.array([18]))), 2, axis=0)
    subject = int(np.flatnonzero(dataset.features.content.any(axis=1))[7])
    context = subject_context(np.array([-1, subject]), dataset.features)
    graph = traits_of(network, prepared)[0]
    network.head.towards.weight.zero_()
    for bias, towards_subject in ((30.0, True), (-30.0, False)):
        network.head.towards.bias.fill_(bias)
        memory = parts_of(network, embed_users(network, catalogue, state, context=context, demographics=nobody))[1]
        assert (cosine(memory[1], graph[subject]) > 0.999) == towards_subject
        assert (cosine(memory[0], memory[1]) < 0.999) == towards_subject


@torch.inference_mode()
def test_traits_of_a_path_and_an_advertiser_say_how_much_is_the_same(prepared: Prepared) -> None:
    network = network_of(prepared, UserEncoder.transformer, trait_dimensions=2048)
    traits = network.item_tower.traits
    category = torch.tensor([[5, 6, 7, 0], [5, 6, 8, 0], [9, 0, 0, 0], [0, 0, 0, 0]])
    advertiser = torch.tensor([[3, 4], [3, 4], [5, 6], [0, 0]])
    found = torch.split(traits(torch.zeros(4, 8), category, advertiser), traits.widths, dim=1)
    assert not found[0].any()
    of_path, of_advertiser = (part @ part.T for part in found[1:])
    one_of_three_differs, same, other = 2 / 3, 1.0, 0.0
    torch.testing.assert_close(of_path[0], torch.tensor([same, one_of_three_differs, other, other]), atol=0.1, rtol=0)
    torch.testing.assert_close(of_advertiser[0], torch.tensor([same, same, other, other]), atol=0.1, rtol=0)
    assert not of_path[3].any()


@torch.inference_mode()
def test_cross_attention_is_concat_where_there_is_no_event_to_attend_to(prepared: Prepared) -> None:
    """Same weights; a state whose stored events are all absent attends to its summary alone."""
    crossed = network_of(prepared, UserEncoder.transformer, fusion="cross_attention", fusion_events=3)
    plain = network_of(prepared, UserEncoder.transformer)
    shared = {name: value for name, value in crossed.state_dict().items() if ".attention." not in name}
    plain.load_state_dict(shared)
    stored = torch.from_numpy(states(crossed, prepared, Slices(np.array([0, 12]), np.array([6, 18]))))
    without_events = stored.clone()
    without_events[:, plain.state_width :] = 0
    catalogue = CatalogueTensors(prepared.dataset.features)
    context = catalogue.context(subject_context(np.array([3, 130]), prepared.dataset.features))
    nobody = torch.zeros(2, 3, dtype=torch.long)
    expected = plain.head(stored[:, : plain.state_width], context, nobody)
    torch.testing.assert_close(crossed.head(without_events, context, nobody), expected, atol=1e-6, rtol=0)
    assert (crossed.head(stored, context, nobody) - expected).abs().max() > 1e-3


@torch.inference_mode()
def test_cross_attention_weighs_the_stored_events_by_the_context(prepared: Prepared) -> None:
    """By hand: one dimension that the subject asks for, two events, of which one has it."""
    network = network_of(prepared, UserEncoder.transformer, fusion="cross_attention", fusion_events=2)
    attention = network.head.attention
    assert attention is not None
    for layer in (attention.query, attention.key):
        layer.weight.copy_(torch.eye(16))
        layer.bias.zero_()
    summary, asked = torch.zeros(1, 16), torch.zeros(1, 16)
    events = torch.zeros(1, 2, 16)
    events[0, 0, 3], events[0, 1, 5], asked[0, 3] = 1.0, 1.0, 4.0
    found = attention(summary, events, asked)[0]
    weights = torch.softmax(torch.tensor([0.0, 4 / 16**0.5, 0.0]), dim=0)  # of the summary and the two events
    assert found[3].item() == pytest.approx(weights[1].item(), abs=1e-6)
    assert found[5].item() == pytest.approx(weights[2].item(), abs=1e-6)


def test_an_embedding_stays_finite_however_long_its_parts_are_said_to_be() -> None:
    parts = [torch.ones(2, 3), torch.zeros(2, 4)]
    joined = parts_by_lengths(torch.tensor([[200.0, 0.0], [-200.0, 0.0]]), parts)
    longest, shortest = joined.norm(dim=1).tolist()
    assert longest == pytest.approx(math.exp(LOG_LENGTH_BOUND) / math.sqrt(2))
    assert shortest == pytest.approx(math.exp(-LOG_LENGTH_BOUND) / math.sqrt(2))
