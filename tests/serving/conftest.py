"""A service over the home of the tiny world, asked without a network in between."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.publication import Served
from settings import RelevanceSettings, Settings
from tests.flow import Ran


@pytest.fixture(scope="session")
def client(ran: Ran) -> Iterator[TestClient]:
    """The service under the tiny world's newest day."""
    settings = Settings(home=ran.home.root, relevance=RelevanceSettings(sample_share=0))  # the home is not written to
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture(scope="session")
def served(client: TestClient) -> Served:
    """What answers."""
    found: Served = client.app.state.service.served  # type: ignore[attr-defined]
    return found


@pytest.fixture(scope="session")
def catalogue(served: Served) -> pl.DataFrame:
    """Attributes of the items, by item_id."""
    return served.catalogue.frame


@pytest.fixture(scope="session")
def user(ran: Ran) -> str:
    """Somebody with a long history."""
    sequences = ran.tables.scan("user_sequences").collect()
    return ran.ids(sequences.sort(pl.col("item_id").list.len(), "user_id", descending=True)["user_id"].head(1))[0]
