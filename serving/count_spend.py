"""From the counters of the online store to the ads whose budget of the day is used up."""

from __future__ import annotations

from datetime import date, datetime
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from warehouse.best_ads import Ads, BestAds, Spend
from warehouse.online import DamagedRecord, OnlineStore
from warehouse.online.spend import counter_key, spend_namespace, total_in


class SpendCounters:
    """The counters of the present day, as they were read last. One thread reads."""

    def __init__(self, store: OnlineStore) -> None:
        self.store = store
        self._ads: Ads | None = None
        self._day = date.min
        self._counters: dict[bytes, bytes] = {}
        self._row_of: dict[bytes, int] = {}
        self._amounts: NDArray[np.float64] = np.zeros(0)

    def read(self, best: BestAds | None, instant: datetime, time_zone: str) -> int:
        """Read the counters of the day of an instant, and set the spend of the ads.

        Return the number of counters that are damaged since the last reading.

        Of a damaged counter the total that was read before counts, and so does that of a counter that has gone.

        Args:
            best: the ads that answer; None where the log has no ads.
            time_zone: of the log, whose days budgets are for.
        """
        if best is None:
            return 0
        day = instant.astimezone(ZoneInfo(time_zone)).date()
        counters = self.store.everything(spend_namespace(day))
        if best.ads is self._ads and day == self._day:
            news, amounts = counters.items() - self._counters.items(), self._amounts.copy()
            if not news:
                return 0
        else:
            self._row_of = _rows_with_budgets(best.ads) if best.ads is not self._ads else self._row_of
            news, amounts = set(counters.items()), np.zeros(len(best.ads))
        damaged = 0
        for key, counter in news:
            try:
                if (row := self._row_of.get(key)) is not None:
                    amounts[row] = total_in(counter)
            except DamagedRecord:
                damaged += 1
        best.spend = Spend.of_day(best.ads, day, time_zone, amounts)
        self._ads, self._day, self._counters, self._amounts = best.ads, day, counters, amounts
        return damaged


def _rows_with_budgets(ads: Ads) -> dict[bytes, int]:
    return {counter_key(ads.offers[row].ad_id): row for row in np.flatnonzero(np.isfinite(ads.budget)).tolist()}
