"""The generator of docs/serving.md, installed as a package and asked by the service; and what happens when it fails."""

from __future__ import annotations

import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.generators import AdvertiserLists, ItemNeighbours
from serving.publication import Served
from settings import ServingSettings, Settings
from tests.flow import Ran

pytestmark = pytest.mark.slow
DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "serving.md").read_text()
SECTION = DOCUMENT.partition("## A generator of your own")[2].partition("\n## ")[0]


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def asked(ran: Ran, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The service with the package and the settings of the document."""
    site = tmp_path_factory.mktemp("site")
    (entry_points,) = tomllib.loads(block("toml"))["project"]["entry-points"].items()
    module = entry_points[1]["untried_items"].partition(":")[0]
    (site / f"{module}.py").write_text(block("python"))
    info = site / "shop_generators-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop-generators\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in entry_points[1].items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{entry_points[0]}]", *lines]))
    (variable, value) = re.findall(r"^export (\w+)='(.*)'$", block("sh"), re.MULTILINE)[0]
    with pytest.MonkeyPatch.context() as patch:  # for this service only
        patch.setenv(variable, value)
        patch.setenv("ADSEQ_SERVING__GENERATOR_SECONDS", "10")  # a busy machine is no late generator
        settings = Settings(home=ran.home.root)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
            yield client
    sys.modules.pop(module)


def candidates(client: TestClient, user: str, **place: Any) -> list[dict[str, Any]]:
    response = client.post("/candidates", json={"user_id": user, **place})
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["candidates"]
    return found


def test_the_example_of_the_document_has_its_share(asked: TestClient, served: Served, user: str) -> None:
    found = candidates(asked, user, k=40, explain=True)
    sources = Counter(each["source"] for each in found)
    assert sources == {"item_neighbours": 28, "advertiser_lists": 8, "untried_items": 4}
    rows = [served.catalogue.row_of[each["item_id"]] for each in found if each["source"] == "untried_items"]
    assert (served.catalogue.popularity[served.catalogue.index_row_of[rows]] == 0).all()
    assert len({each["item_id"] for each in found}) == 40
    assert "adseq_generator_faults_total{" not in asked.get("/metrics").text


def test_the_two_generators_of_the_service_answer_as_without_the_setting(
    client: TestClient, ran: Ran, user: str
) -> None:
    said = ServingSettings(generators={"item_neighbours": 0.1, "advertiser_lists": 0.2})
    with TestClient(create_app(Settings(home=ran.home.root, serving=said)), base_url="http://127.0.0.1") as other:
        assert candidates(other, user, k=100) == candidates(client, user, k=100)


def test_an_answer_lacks_the_items_of_a_generator_that_fails(
    client: TestClient, asked: TestClient, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ConnectionError("its own server is gone")

    monkeypatch.setattr(sys.modules["shop_generators"].UntriedItems, "generate", fail)
    found = candidates(asked, user, k=40)
    assert found == candidates(client, user, k=40)
    text = asked.get("/metrics").text
    assert 'adseq_generator_faults_total{generator="untried_items",kind="raised"} 1.0' in text


def test_if_every_generator_fails_the_answer_is_by_popularity(
    ran: Ran, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a fault")

    for generator in (ItemNeighbours, AdvertiserLists):
        monkeypatch.setattr(generator, "generate", fail)
    with TestClient(create_app(Settings(home=ran.home.root)), base_url="http://127.0.0.1") as broken:
        answer = broken.post("/candidates", json={"user_id": user, "k": 5}).json()
    assert answer["basis"] == "popularity"
    assert [each["source"] for each in answer["candidates"]] == ["popularity"] * 5


def test_the_document_of_the_interface_names_the_known_sources_and_allows_others(client: TestClient) -> None:
    source = client.get("/openapi.json").json()["components"]["schemas"]["Candidate"]["properties"]["source"]
    assert source["type"] == "string"
    assert "enum" not in source
    assert source["examples"] == ["item_neighbours", "advertiser_lists", "popularity"]
