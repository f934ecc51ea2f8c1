"""Every setting of adseq in one typed place.

Defaults live here. The environment overrides them (``ADSEQ_TRAINING__EPOCHS=3``), and Dagster's launchpad
overrides the environment for one run (resource ``workspace``). Each training run logs the effective values to MLflow.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

UNKNOWN_ADVERTISER = "unknown"  # of events and items whose advertiser the log does not name
AD_CLICK, AD_CONVERSION = "ad_click", "ad_conversion"
ONSITE_EVENTS = (AD_CLICK, AD_CONVERSION)
"""Names of the events that impressions are turned into. They are in sequences only: no statistic, graph, baseline or
label counts them."""


class UserEncoder(StrEnum):
    """What turns a user's events into their state."""

    transformer = "transformer"
    mean_pooling = "mean_pooling"
    max_pooling = "max_pooling"


class ContextRecipe(StrEnum):
    """Where the synthetic context of a training example comes from."""

    own_interests = "own_interests"  # the plain recipe of the post: the positive's own interests
    basket_mate = "basket_mate"  # another item of the same user, within a day of the positive; else as co_engaged
    co_engaged = "co_engaged"  # an item that users engage with on the same day as the positive
    category_neighbour = "category_neighbour"  # another item of the positive's category
    none = "none"  # no context: the sequential model


class Fusion(StrEnum):
    """How the head brings the history and the context together."""

    concat = "concat"  # [summary ; context]
    cross_attention = "cross_attention"  # the context attends over the newest encoded events, held in the state


class Objective(StrEnum):
    """Which of the positives to come are training examples (``ml/examples/objectives.py``)."""

    next_action = "next_action"  # a user's first positive after a cut-off
    all_action = "all_action"  # every distinct positive item of the K days after a cut-off
    dense_all_action = "dense_all_action"  # also at events between cut-offs; one random positive of the K days after


class IndexKind(StrEnum):
    """FAISS index family. ``auto`` is exact below ``exact_below`` items, and IVF from ``sharded_from`` items on; HNSW
    between."""

    auto = "auto"
    exact = "exact"
    hnsw = "hnsw"
    ivf = "ivf"  # lists around centroids, filled by the engine shard by shard
    ivf_pq = "ivf_pq"


class Group(BaseModel):
    """A group of settings: frozen, and unknown names are errors rather than silently ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSettings(Group):
    """How the landing zone is read and when a day is stopped."""

    maximum_quarantine_share: float = Field(
        0.05, ge=0, le=1, description="The run stops if a table of a day has a larger share of quarantined rows."
    )
    future_tolerance_hours: float = Field(
        24.0, ge=0, description="An event is quarantined if it is later than the end of its arrival day by more."
    )
    memory_gib: float = Field(
        1.0,
        ge=0.25,
        description="Memory in GiB for reading, checking and sorting an arrival; a larger arrival uses the disk.",
    )
    part_mib: int = Field(
        256,
        ge=0,
        description="MiB of an arrival's files that a process of a cluster reads at once, about; no file is cut.",
    )
    bucket_events: int = Field(
        1_000_000,
        ge=1,
        description="Arrived events of a bucket of users, about; a cluster runs several buckets at once.",
    )
    scratch: str = Field(
        "",
        description="Directory in which sequences are sorted; empty: the home. On a cluster, a node's own disk.",
    )
    keep_days: int = Field(
        30,
        ge=2,
        description="Days whose item features, embeddings and indexes are kept; older ones can be computed again.",
    )
    keep_versions_days: float = Field(
        7.0,
        ge=0,
        description="Days for which the files of replaced and removed partitions stay, so that tables can be restored.",
    )

    @property
    def part_bytes(self) -> int:
        return self.part_mib * 2**20

    @property
    def batch_bytes(self) -> int:
        """How much of a file is read at a time, so that checking it takes about half of the memory."""
        return int(self.memory_gib * 2**30 / 16)


class QualitySettings(Group):
    """When the data of a day warn, and when they stop it before inference."""

    minimum_events: int = Field(200, ge=1, description="A share of fewer events is not judged.")
    volume_warn: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Warns if the day has fewer events than this share of the same weekday, or more than 1/this.",
    )
    volume_stop: float = Field(
        0.0, ge=0, le=1, description="Stops likewise; 0 never, so that a day without events passes."
    )
    coverage_fall_warn: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Warns if a share of known items, traits or users falls by more against the week before.",
    )
    coverage_fall_stop: float = Field(0.5, ge=0, le=1, description="Stops if such a share falls by more.")
    mix_warn: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Warns if more of the events would need another name to have the mix of the week before.",
    )
    mix_stop: float = Field(0.8, ge=0, le=1, description="Stops if more of the events would need another name.")
    late_warn: float = Field(
        0.3, ge=0, le=1, description="Warns if more of the events happened before their arrival day."
    )
    late_stop: float = Field(1.0, ge=0, le=1, description="Stops if more of the events are late; 1 never.")
    quarantined_warn: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Warns if more of the events are quarantined; data.maximum_quarantine_share stops the day.",
    )
    shared_ids_warn: float = Field(
        0.01, ge=0, le=1, description="Warns if more of the events have the event_id of another user's event."
    )
    newest_hours_warn: float = Field(
        24.0, ge=0, description="Warns if the newest event is more hours before the end of its day."
    )
    context_shift_warn: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Warns if more of the requests beside an item would need another category to have the mix of the "
        "contexts that the model has learnt.",
    )
    never_engaged_warn: float = Field(
        0.25, ge=0, le=1, description="Warns if more of the first 100 slots hold items that no user has engaged with."
    )
    score_shift_warn: float = Field(
        0.5,
        ge=0,
        description="Warns if the median best score moves by more, in 10 % to 90 % ranges of the week before.",
    )


class EngineKind(StrEnum):
    """Where the stages run."""

    local = "local"  # in the process of the run
    ray = "ray"  # on a Ray cluster


class EngineSettings(Group):
    """The engine that runs the parts of stages."""

    kind: EngineKind = Field(EngineKind.local, description="local: in this process; ray: as tasks of a Ray cluster.")
    address: str = Field(
        "127.0.0.1:6380",
        pattern=r"^\S+:\d+$",
        description="host:port of the Ray cluster; `make cluster` starts one there.",
    )


class SequenceSettings(Group):
    """Shape of a user's behaviour sequence. A model keeps the shape that it was trained with: a change takes effect
    with the next training."""

    length: int = Field(100, ge=1, description="Maximum number of events; the newest are kept.")
    lookback_days: int = Field(1825, ge=1, description="Days before the day; older events are left out.")

    @property
    def name(self) -> str:
        """Return the shape in a few characters: equal names, equal sequences."""
        return f"{self.length}-{self.lookback_days}"


class FeatureSettings(Group):
    """Item features that both towers read."""

    content_dimensions: int = Field(128, ge=2, description="Width of the graph embedding.")
    text_dimensions: int = Field(
        128, ge=0, description="Width of the vector of a title's and a query's words; 0: words are no feature."
    )
    cross_fit_folds: int = Field(
        4,
        ge=1,
        description="Folds of users in training; a fold learns under the graph of the others. 1: no cross-fitting.",
    )
    statistics_windows_days: list[float] = Field(
        [0.04, 0.25, 1, 7, 28, 90, 365],
        description="Trailing windows of the as-of counts in days; .04 is an hour. All time is counted as well.",
    )
    category_buckets: int = Field(4096, ge=16, description="Hash buckets of category path nodes and interests.")
    advertiser_buckets: int = Field(4096, ge=16, description="Hash buckets of advertiser ids.")
    advertiser_hashes: int = Field(
        2, ge=1, description="Number of hashes of an advertiser id; their embeddings are added."
    )


class ExampleSettings(Group):
    """Training examples: cut-offs, future windows, label weights."""

    objective: Objective = Field(Objective.all_action, description="Which of the positives to come are examples.")
    dense_positions: int = Field(
        8, ge=0, description="dense_all_action: at most this many events a user between two cut-offs, drawn at random."
    )
    cutoffs: int = Field(40, ge=1, description="Number of training cut-offs, evenly spaced.")
    span_days: int = Field(365, ge=1, description="The cut-offs cover this many days before the training period's end.")
    maximum_examples: int = Field(
        600_000, ge=1, description="Upper bound on examples; above it a seeded uniform sample is kept."
    )
    minimum_examples: int = Field(1000, ge=1, description="Training stops if there are fewer examples.")
    label_weights: dict[str, float] = Field(
        {"checkout": 1.0, "add_to_cart": 0.5, "signup": 1.0},
        description="Weight of a positive by event name; 1 for other names.",
    )


class ContextSettings(Group):
    """Context in training: of the log's requests, or synthetic where the log has too few of them beside an item."""

    recipe: ContextRecipe = Field(ContextRecipe.basket_mate, description="Source of the synthetic context.")
    minimum_requests: int = Field(
        1000,
        ge=1,
        description="With so many logged requests beside an item before the two newest windows, the model learns their "
        "contexts instead of synthetic ones; with so many beside an item or for a query, it learns the searches. "
        "A higher number than the log has keeps to the recipe.",
    )
    request_share: float = Field(
        0.33,
        gt=0,
        le=0.9,
        description="Share of the training examples that are ads shown at logged requests, where these are learnt: "
        "they are repeated, or a sample is kept, and they are no more than examples.maximum_examples. More is better "
        "beside an item, less is better on the home feed.",
    )
    dropout: float = Field(0.3, ge=0, le=1, description="Share of training examples whose context is dropped.")
    interest_dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of the interests of a context that is left out in training."
    )
    confidence_jitter: float = Field(
        0.0, ge=0, description="Standard deviation of the noise on the log confidence of a shown interest."
    )


class ModelSettings(Group):
    """The two-tower model."""

    encoder: UserEncoder = Field(UserEncoder.transformer, description="Encoder of the user's events.")
    width: int = Field(64, ge=8, description="Width of the encoder and of the learned part of embeddings.")
    layers: int = Field(2, ge=1, description="Layers of the transformer.")
    heads: int = Field(4, ge=1, description="Attention heads of a layer.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout of the networks in training.")
    fusion: Fusion = Field(Fusion.concat, description="How the head combines the history with the context.")
    fusion_events: int = Field(
        8, ge=1, description="cross_attention: number of the newest encoded events that the state holds."
    )
    trait_dimensions: int = Field(
        48, ge=2, description="Width of the category part and of the advertiser part of the memory."
    )
    content_dropout: float = Field(
        0.1, ge=0, lt=1, description="Share of items that have the content of a cold item in training."
    )


class TrainingSettings(Group):
    """Optimisation and the sampled softmax."""

    seed: int = Field(0, description="Seed of everything that a training draws.")
    batch_size: int = Field(512, ge=2, description="Pairs (user at a cut-off, positive item) a step.")
    corpus_negatives: int = Field(
        2048,
        ge=0,
        description="Uniform corpus negatives a step, shared by the batch; of many, some are scored at a time.",
    )
    alpha_positive: float = Field(0.0, description="Weight of the log-Q correction of the positive.")
    alpha_negative: float = Field(
        1.0, description="Weight of the log-Q correction of the negatives; 1 is full softmax, less is more diverse."
    )
    temperature: float = Field(0.03, gt=0, description="Initial softmax temperature; learned.")
    learning_rate: float = Field(2e-3, gt=0, description="Learning rate of AdamW.")
    weight_decay: float = Field(1e-2, ge=0, description="Weight decay of AdamW.")
    epoch_examples: int = Field(40_000, ge=1, description="Examples an epoch, drawn anew each epoch.")
    epochs: int = Field(8, ge=1, description="Number of epochs.")
    validation_users: int = Field(
        4000, ge=1, description="Number of users of the validation slice that are scored after each epoch."
    )
    processes: int = Field(
        1,
        ge=1,
        description="Processes that share each batch, on one thread each: on this machine, or as workers of the Ray "
        "cluster. Another number is another fit, equal within rounding and dropout.",
    )
    fits_at_once: int = Field(
        0,
        ge=0,
        description="Fits of one training that run side by side, each in a process of its own on one thread. 0: one a "
        "core, or one fit where there is an accelerator or a fit has several processes. 1: one after the other, in one "
        "process, on all threads.",
    )


class SweepSettings(Group):
    """The sweep over the weights of the log-Q correction."""

    alphas_positive: list[float] = Field([0.0, 0.5], min_length=1, description="Weights tried for the positive.")
    alphas_negative: list[float] = Field([0.5, 0.75, 1.0], min_length=1, description="Weights tried for the negatives.")
    epochs: int = Field(3, ge=1, description="Epochs of each point's fit.")
    recall_tolerance: float = Field(
        0.02,
        ge=0,
        le=1,
        description="The best point is the most diverse of those within this share of the best Recall@100.",
    )


class InferenceSettings(Group):
    """Encoding users and items."""

    batch_tokens: int = Field(32_768, ge=1, description="Events a batch (bounds memory).")
    bfloat16: bool = Field(False, description="Encode users in bfloat16 autocast (cosine >= 0.9999 to float32).")
    compaction_days: int = Field(
        30,
        ge=1,
        description="Number of daily partitions after which a snapshot is written; later snapshots begin there.",
    )


class IndexSettings(Group):
    """The item embeddings that are indexed, and the approximate nearest-neighbour index."""

    popularity_weight: float = Field(
        0.12,
        ge=0,
        le=2,
        description="An item's score loses this share of the temperature times log(1 + 100 * the item's places in "
        "lists of a sample of users, over the mean). More makes lists more diverse; a lot costs recall. No training is "
        "needed: the embeddings of the next day have it, unless the model was trained before there was this setting.",
    )
    kind: IndexKind = Field(IndexKind.auto, description="Family; auto: by exact_below and sharded_from.")
    exact_below: int = Field(100_000, ge=0, description="Catalogues below this many items are searched exactly.")
    sharded_from: int = Field(
        1_000_000,
        ge=0,
        description="Catalogues of this many items and more get an IVF index, which the engine fills shard by shard.",
    )
    minimum_recall: float = Field(
        0.98, ge=0, le=1, description="The day stops if Recall@100 of the index against brute force is lower."
    )
    minimum_filtered_recall: float = Field(
        0.95,
        ge=0,
        le=1,
        description="The day stops if the index finds a smaller share of the best items that pass real users' filters.",
    )


class AdditionalModel(StrEnum):
    """Models of the reports that no training trains by default (``ml/evaluation/model_names.py``)."""

    max_pooling = "max_pooling"
    contextual_cross_attention = "contextual_cross_attention"


class EvaluationSettings(Group):
    """Reports."""

    ks: list[int] = Field([10, 50, 100, 1000], description="List lengths of Recall@K.")
    depth: int = Field(
        300, ge=1, description="Length of exported lists; a list with too few warm items is made longer."
    )
    maximum_users: int = Field(
        5_000, ge=1, description="Maximum number of evaluation users; of more, a seeded sample is taken."
    )
    bootstrap_samples: int = Field(200, ge=0, description="Number of resamples of users for a confidence interval.")
    oracle_futures: int = Field(
        400,
        ge=1,
        description="Futures that the oracle of the synthetic world simulates a user. In the demo, 640 instead of 320 "
        "move its Recall@10 by .0004 and its Recall@100 by .005.",
    )
    oracle_funnels: int = Field(
        8,
        ge=1,
        description="Runs of the market from which the contextual oracle of the synthetic world learns the scores that "
        "win a slot. On 1,500 requests of the default world, 16 instead of 8 move its Recall@10 by .001.",
    )

    arm_candidates: int = Field(
        50,
        ge=1,
        le=100,
        description="Candidates that a model proposes for a request when the market of the synthetic world runs again.",
    )
    additional_models: list[AdditionalModel] = Field(
        [],
        description="Models that a training of the item model trains for the reports beside the usual ones, as JSON: "
        "max_pooling, contextual_cross_attention. Each takes about as long as the contextual model.",
    )


class GateSettings(Group):
    """When a new model may become champion."""

    recall_tolerance: float = Field(
        0.02, ge=0, description="Relative loss of Recall@100 against the champion up to which a new model passes."
    )
    diversity_tolerance: float = Field(
        0.1, ge=0, description="Relative loss of diversity90 against the champion up to which a new model passes."
    )


class RelevanceSettings(Group):
    """Labels of raters, the relevance model, the trim, and the measurement of relevance."""

    relevant_label: int = Field(4, ge=2, le=5, description="A candidate with this label or a higher one is relevant.")
    minimum_labels: int = Field(
        500, ge=10, description="Labels that a relevance model needs; with fewer there is none."
    )
    retrain_share: float = Field(
        0.1,
        ge=0,
        description="A new relevance model is trained when so many labels have arrived since the model in use was "
        "trained, as a share of those that had arrived until then.",
    )
    text_dimensions: int = Field(64, ge=2, description="Width of the space in which titles and queries are compared.")
    trim_keeps: float = Field(
        0.96,
        gt=0,
        lt=1,
        description="Share of the relevant candidates that the trim keeps, of each content type. Higher trims less.",
    )
    calibration_labels: float = Field(
        200.0,
        gt=0,
        description="Labels with which the calibration of a surface and content type counts as much as that of all.",
    )
    holdout_share: float = Field(
        0.05, ge=0, lt=1, description="Share of the users whose candidates are never trimmed, for comparison."
    )
    sample_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of the service's requests whose candidates are all logged, without the user.",
    )
    queue_pairs: int = Field(200, ge=1, description="Pairs that raters get a day.")
    raters_per_pair: int = Field(2, ge=1, description="Raters of one pair; with two, disagreement can be measured.")
    tolerance: float = Field(
        0.005,
        ge=0,
        description="Loss of nDCG@10, or gain of the calibration error, up to which a new relevance model is deployed.",
    )
    probes: int = Field(
        8000,
        ge=100,
        description="Requests that the daily scrape asks under production and holdout; all, where fewer are logged.",
    )
    label_days: int = Field(28, ge=1, description="Days of arrival of the labels whose raters are compared.")
    funnel_days: int = Field(7, ge=1, description="Days of the fraction relevant through the funnel.")
    watched_days: int = Field(7, ge=3, description="Days before, against which monitoring holds a day.")
    coverage_bound: float = Field(
        0.1, gt=0, lt=1, description="Share of the coverage of a feature whose loss warns, where chance explains less."
    )
    stability_bound: float = Field(
        0.2, gt=0, description="Population stability index of a feature or score above which monitoring warns."
    )
    trim_rate_bound: float = Field(
        0.1, gt=0, lt=1, description="Change of the share that the trim drops above which monitoring warns."
    )
    report_days: int = Field(28, ge=1, description="Days of arrival of the reports whose pairs raters get.")


class AdvertiserSettings(Group):
    """The advertiser model, where it differs from the item model; the rest are the groups above."""

    memory_dimensions: int = Field(128, ge=2, description="Width of the memory of advertisers.")
    batch_size: int = Field(1024, ge=2, description="Pairs (user at a cut-off, advertiser) a step.")
    corpus_negatives: int = Field(256, ge=0, description="Uniform negatives a step, shared by the batch.")
    alpha_positive: float = Field(0.0, description="Weight of the log-Q correction of the positive.")
    alpha_negative: float = Field(1.0, description="Weight of the log-Q correction of the negatives.")
    epoch_examples: int = Field(60_000, ge=1, description="Examples an epoch, drawn anew each epoch.")
    epochs: int = Field(6, ge=1, description="Number of epochs.")
    list_depth: int = Field(100, ge=1, description="Advertisers predicted for each active user a day.")
    report_index_size: int = Field(
        10_000,
        ge=1,
        description="Number of advertisers in the report's index: all positives and a uniform sample of the others.",
    )


class Precision(StrEnum):
    """How the numbers of a state are stored."""

    float32 = "float32"
    float16 = "float16"


class OnlineSettings(Group):
    """The online store, which the candidate service reads."""

    store: str = Field("lmdb", description="lmdb (in the home), or the address of a Redis server: redis://host:6379/0")
    precision: Precision = Field(
        Precision.float32,
        description="Number format of stored states; float16 halves their size (docs/performance.md has the cost).",
    )


Share = Annotated[float, Field(gt=0, le=1)]


class ServingSettings(Group):
    """The candidate service. Of runs, only the market's arms of the advertiser lists use any of these settings."""

    advertiser_share: float = Field(
        0.2, ge=0, le=1, description="Share of an answer's places for items of the advertisers predicted for the user."
    )
    advertiser_quota: int = Field(3, ge=1, description="Maximum number of items per predicted advertiser.")
    generators: dict[str, Share] = Field(
        {},
        description="Shares of an answer's places by generator, as JSON; the first generator also has what the others "
        "leave. Empty: item_neighbours, and advertiser_lists with serving.advertiser_share.",
    )
    generator_seconds: float = Field(
        0.05,
        gt=0,
        description="Seconds that a request waits for generators of other packages; then the others answer.",
    )
    maximum_wait_seconds: float = Field(
        2.0,
        gt=0,
        description="Seconds that a request of a burst may wait; after that the answer is 503 with Retry-After.",
    )
    overload_wait_seconds: float = Field(
        0.05,
        gt=0,
        description="The same bound once requests have waited without a break for maximum_wait_seconds.",
    )
    maximum_waiting: int = Field(
        256, ge=1, description="Maximum number of waiting requests; a further request gets 503 at once."
    )
    maximum_connections: int = Field(
        1024, ge=1, description="Maximum connections of one process; a new one closes the one that is idle longest."
    )
    maximum_connections_of_peer: int = Field(
        512, ge=1, description="Maximum connections of one process from one address."
    )
    maximum_head_bytes: int = Field(16_384, ge=1024, description="Maximum bytes of a request's line and headers.")
    maximum_headers: int = Field(100, ge=10, description="Maximum number of headers of a request.")
    request_seconds: float = Field(
        5.0, gt=0, description="Seconds in which a request must have arrived as a whole; else 408."
    )
    taking_seconds: float = Field(10.0, gt=0, description="Seconds in which a client must have received an answer.")
    keep_alive_seconds: int = Field(30, ge=1, description="Seconds that a connection may be idle between requests.")
    drain_seconds: float = Field(
        2.0,
        ge=0,
        description="Seconds after SIGTERM in which /ready says 503 and new connections are still answered.",
    )
    grace_seconds: float = Field(10.0, gt=0, description="Seconds after SIGTERM in which the process ends.")
    requests_per_second: float | None = Field(
        None, ge=1, description="Maximum requests per second of one process; further requests get 429. None: no limit."
    )
    follow_seconds: float = Field(2.0, gt=0, description="How often the service looks for a new publication.")

    @model_validator(mode="after")
    def _shares_of_one_answer(self) -> Self:
        together = sum(self.generators.values())
        if together > 1 + 1e-9:
            raise ValueError(f"the shares of serving.generators add up to {together:g}: they are at most 1 together")
        return self

    @property
    def generator_shares(self) -> dict[str, float]:
        """Return the share of each generator of an answer, the first one with what the others leave."""
        shares = self.generators or {"item_neighbours": 1.0, "advertiser_lists": self.advertiser_share}
        first, *others = shares
        return {first: 1 - sum(shares[name] for name in others), **{name: shares[name] for name in others}}


def _as_text(value: object) -> str:
    """Return a value as text, the names in a list as plain text."""
    if isinstance(value, list):
        value = [each.value if isinstance(each, StrEnum) else each for each in value]
    return str(value)


PREFIX, SEPARATOR = "ADSEQ_", "__"
OTHER_VARIABLES = frozenset({"ADSEQ_TOKEN", "ADSEQ_SHARED", "ADSEQ_MLFLOW_PORT", "ADSEQ_DAGSTER_PORT"})
"""Variables with the prefix that are no settings: a secret, a developer's shared files, the ports of `adseq ui`."""

SERVICE_LINK = re.compile(r"ADSEQ_([A-Z0-9]+_)*(SERVICE_(HOST|PORT)|PORT)(_[A-Z0-9]+)*")
"""Variables that Kubernetes sets in the pods beside a Service whose name begins with ``adseq``."""


class AlertSettings(BaseModel):
    """Who is told that a run failed, or that a check warns. No group of a run: the address of a webhook is a secret."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    webhook: str = Field("", description="Address that gets a POST of {'text': ...}, as Slack and Mattermost take it.")
    email: str = Field("", description="Addresses that get an e-mail, separated by commas.")
    sender: str = Field("adseq@localhost", description="Sender of the e-mails.")
    smtp: str = Field("localhost:25", description="Mail server, host:port.")

    @property
    def recipients(self) -> list[str]:
        return [address.strip() for address in self.email.split(",") if address.strip()]


class Settings(BaseSettings):
    """All groups. ``Settings()`` reads the environment; a group's field is ``ADSEQ_<GROUP>__<FIELD>``."""

    model_config = SettingsConfigDict(env_prefix="ADSEQ_", env_nested_delimiter="__", frozen=True, extra="ignore")

    home: Path = Field(Path(".adseq"), description="Everything adseq writes lives under this directory.")
    data: DataSettings = DataSettings()
    engine: EngineSettings = EngineSettings()
    quality: QualitySettings = QualitySettings()
    sequences: SequenceSettings = SequenceSettings()
    features: FeatureSettings = FeatureSettings()
    examples: ExampleSettings = ExampleSettings()
    context: ContextSettings = ContextSettings()
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    sweep: SweepSettings = SweepSettings()
    inference: InferenceSettings = InferenceSettings()
    index: IndexSettings = IndexSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    gate: GateSettings = GateSettings()
    relevance: RelevanceSettings = RelevanceSettings()
    advertisers: AdvertiserSettings = AdvertiserSettings()
    online: OnlineSettings = OnlineSettings()
    serving: ServingSettings = ServingSettings()
    alerts: AlertSettings = AlertSettings()

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_variable(cls, values: Any) -> Any:
        """Refuse a variable with the prefix that no setting reads: a misspelt one would be ignored."""
        if unknown := unknown_variables(os.environ):
            raise ValueError("; ".join(unknown))
        return values

    def with_value(self, name: str, value: object) -> Settings:
        """The same settings with one value by its dotted name, validated.

        An entry of a setting that is a table has a name of three parts, ``examples.label_weights.checkout``.

        Raises:
            KeyError: there is no such setting.
            pydantic.ValidationError: the value breaks the setting's rule.
        """
        group_name, field, entry = self._parts(name)
        group = getattr(self, group_name)
        new = {**getattr(group, field), entry: value} if entry else value
        changed = type(group).model_validate({**group.model_dump(), field: new})
        return self.model_copy(update={group_name: changed})

    def value(self, name: str) -> Any:
        """Return a value by its dotted name, as ``with_value``; None for an entry that a table does not have.

        Raises:
            KeyError: there is no such setting.
        """
        group_name, field, entry = self._parts(name)
        value = getattr(getattr(self, group_name), field)
        return value.get(entry) if entry else value

    def _parts(self, name: str) -> tuple[str, str, str]:
        """Return group, field and entry of a name; the entry is empty but for a table.

        Raises:
            KeyError: there is no such setting.
        """
        group_name, _, rest = name.partition(".")
        field, _, entry = rest.partition(".")
        group = getattr(self, group_name, None)
        known = isinstance(group, Group) and field in type(group).model_fields
        if not known or (entry and not isinstance(getattr(group, field), dict)):
            raise KeyError(name)
        return group_name, field, entry

    def flat(self) -> dict[str, str | int | float | bool]:
        """Every effective value by its dotted name, as MLflow parameters."""
        groups = {name: group for name, group in self if isinstance(group, Group)}
        return {
            f"{name}.{field}": value if isinstance(value, bool | int | float) else _as_text(value)
            for name, group in groups.items()
            for field, value in group.model_dump().items()
        }


@cache
def variables() -> tuple[str, ...]:
    """Return the environment variable of every setting and of every group, which takes JSON."""
    names = []
    for name, field in Settings.model_fields.items():
        variable = PREFIX + name.upper()
        names.append(variable)
        group = field.annotation
        if isinstance(group, type) and issubclass(group, BaseModel):
            names += [variable + SEPARATOR + each.upper() for each in group.model_fields]
    return tuple(names)


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return a sentence for each variable with the prefix that neither is a setting nor part of one."""
    known = variables()
    settings = frozenset(known)
    sentences = []
    for name in sorted(environment):
        variable = name.upper()
        group, _, rest = variable.partition(SEPARATOR)
        field = group + SEPARATOR + rest.partition(SEPARATOR)[0]  # an entry of a setting that is a dictionary
        if not variable.startswith(PREFIX) or settings & {variable, field} or variable in OTHER_VARIABLES:
            continue
        if SERVICE_LINK.fullmatch(variable):
            continue
        sentences.append(f"{name} is no setting.{did_you_mean(variable, known)} Correct the name or unset it")
    return sentences


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question that names the closest of ``known``, by the whole name or by what follows the group."""
    names = list(known)
    close = get_close_matches(name, names, n=3, cutoff=0.75)
    if not close:
        by_field: dict[str, list[str]] = {}
        for each in names:
            by_field.setdefault(_field_of(each), []).append(each)
        fields = get_close_matches(_field_of(name), list(by_field), n=2, cutoff=0.75)
        close = [each for field in fields for each in by_field[field]][:3]
    if not close:
        return ""
    others = f" (or {', '.join(close[1:])})" if close[1:] else ""
    return f" Did you mean {close[0]}?{others}"


def _field_of(name: str) -> str:
    """Return the last part of ``group.field`` or ``ADSEQ_GROUP__FIELD``."""
    return name.rpartition(SEPARATOR if SEPARATOR in name else ".")[2]
