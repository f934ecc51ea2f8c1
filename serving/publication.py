"""One publication in memory: head, catalogue and index of one model version, which belong together."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.examples.named_interests import named_interests, with_words
from ml.features.interest_profiles import InterestProfiles
from ml.features.search_queries import InterestMatcher
from ml.file_integrity import Unreadable
from ml.models.artifact import ModelArtifact
from ml.models.request_head import RequestContext, RequestHead
from ml.retrieval.index import ItemIndex
from ml.retrieval.index_files import load_index
from serving.catalogue import Catalogue, verify_catalogue
from serving.count_spend import SpendCounters
from serving.relevance_scorer import RelevanceScorer
from warehouse.home import Home
from warehouse.identity import UserKeys
from warehouse.item_trainings import why_nothing_published
from warehouse.online import NothingPublished, OnlineStore
from warehouse.online.publication import Publication, served_whole
from warehouse.tables import Tables

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """The publication that answers requests until a newer publication is loaded."""

    publication: Publication
    artifact: ModelArtifact
    head: RequestHead
    catalogue: Catalogue
    index: ItemIndex
    matcher: InterestMatcher | None
    profiles: InterestProfiles
    keys: UserKeys
    relevance: RelevanceScorer | None

    @classmethod
    def load(cls, home: Path, publication: Publication) -> Served:
        """Read a publication's files.

        Raises:
            Unreadable: a file of the model, the index or the catalogue is missing or damaged.
            ValueError: the index and the catalogue come from different runs.
        """
        verify_catalogue(home, publication)
        artifact, loaded = ModelArtifact.load(home / publication.model), load_index(home / publication.index)
        windows = artifact.settings.features.statistics_windows_days
        catalogue = Catalogue.read(home / publication.catalogue, loaded.item_ids, windows)
        catalogue.warm_up(publication.instant(datetime.now(UTC)))
        buckets, matcher = artifact.settings.features.category_buckets, InterestMatcher.of(catalogue.frame)
        relevance = None
        try:
            if publication.relevance is not None:
                relevance = RelevanceScorer.load(
                    home / publication.relevance,
                    catalogue.frame,
                    features=catalogue.features,
                    listed=catalogue.listed,
                    matcher=matcher,
                    artifact=artifact,
                )
        except Unreadable as error:  # an answer that is not trimmed is better than none
            logger.error("nothing is trimmed: %s", error)
        return cls(
            publication,
            artifact,
            RequestHead.of(artifact.network.head),
            catalogue,
            loaded.index,
            matcher,
            InterestProfiles.of(catalogue.frame, catalogue.features, buckets),
            UserKeys.of_home(Home(home)),
            relevance,
        )

    @classmethod
    def newest(cls, home: Path, store: OnlineStore) -> Served:
        """Return the publication that the store's pointer names, loaded.

        Raises:
            NothingPublished: no day has been published.
            StoreDamaged: the store lacks records that its pointer promises, or holds records of another format.
            Unreadable, ValueError: see ``load``.
        """
        publication = served_whole(store)
        if publication is None:
            raise NothingPublished(f"{home}: {why_nothing_published(Tables(Home(home).tables))}")
        loaded = cls.load(home, publication)
        instant = publication.instant(datetime.now(UTC))
        SpendCounters(store).read(loaded.catalogue.eligibility.ads, instant, publication.time_zone)
        return loaded

    def context(self, subject: int | None, interests: dict[str, float], query: str | None = None) -> RequestContext:
        """Return the context of one request: the catalogue row the user looks at, interests, and the words of a query.

        The interests replace the row's own interests. Without a row, the context shows the middle of the items that
        have these interests, with the words of the query in the place of their titles'.
        """
        features = self.catalogue.features
        if not interests and query is None:
            return RequestContext.absent(features) if subject is None else RequestContext.beside(subject, features)
        named = named_interests([interests], self.profiles, self.artifact.settings.features.category_buckets)
        if query is not None:
            named = with_words(named, pl.Series([query]), self.artifact.basis)
        if subject is not None:
            named = replace(named, subject=np.array([subject]))
        return RequestContext.of(named, features)

    def embed(
        self, state: NDArray[np.float32] | None, context: RequestContext, demographics: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the query embedding [width]: the head over state, context and demographics [3].

        ``state`` is the stored state, or None if nothing is known.
        """
        return self.head(np.zeros(self.head.layout.size, np.float32) if state is None else state, context, demographics)
