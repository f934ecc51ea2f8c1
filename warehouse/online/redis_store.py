"""The store on a Redis server: a hash a shelf, a string for the sign."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice
from typing import cast

import redis

from warehouse.online.store import STAMP_BYTES, StoreUnreachable

ROWS_A_CALL = 500  # the server does nothing else meanwhile
PREFIX = "adseq:"
SIGN = f"{PREFIX}served"
# ARGV: key, value, key, value, ... Stamps are compared as bytes, which is why they are big-endian.
PUT = f"""
local stored = 0
for i = 1, #ARGV, 2 do
    local held = redis.call('HGET', KEYS[1], ARGV[i])
    if not held or string.sub(held, 1, {STAMP_BYTES}) <= string.sub(ARGV[i + 1], 1, {STAMP_BYTES}) then
        redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
        stored = stored + 1
    end
end
return stored
"""

# ARGV: key, the new value, and the value that must be there, unless there must be none.
EXCHANGE = """
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held ~= (ARGV[3] or false) then
    return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
"""


class RedisStore:
    """See ``OnlineStore``. How durable a write is depends on the server's configuration (``appendonly``)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)
        try:
            self.client.ping()
        except redis.RedisError as error:
            raise StoreUnreachable(
                f"no Redis server answers at {url.rpartition('@')[2]} ({error}): start it, or set "
                "ADSEQ_ONLINE__STORE to another address"
            ) from error
        self._put, self._exchange = self.client.register_script(PUT), self.client.register_script(EXCHANGE)

    def put(self, shelf: str, rows: Iterable[tuple[bytes, bytes]]) -> int:
        remaining, stored = iter(rows), 0
        while batch := list(islice(remaining, ROWS_A_CALL)):
            stored += int(self._put(keys=[PREFIX + shelf], args=list(chain.from_iterable(batch))))
        return stored

    def exchange(self, shelf: str, key: bytes, before: bytes | None, after: bytes) -> bool:
        arguments = [key, after] if before is None else [key, after, before]
        return bool(self._exchange(keys=[PREFIX + shelf], args=arguments))

    def get(self, shelf: str, key: bytes) -> bytes | None:
        return cast("bytes | None", self.client.hget(PREFIX + shelf, key))

    def remove(self, shelf: str, keys: Iterable[bytes]) -> int:
        wanted = list(keys)
        return int(self.client.hdel(PREFIX + shelf, *wanted)) if wanted else 0

    def count(self, shelf: str) -> int:
        return int(self.client.hlen(PREFIX + shelf))

    def shelves(self) -> list[str]:
        names = (key.decode().removeprefix(PREFIX) for key in self.client.scan_iter(f"{PREFIX}*", _type="hash"))
        return sorted(names)

    def clear(self, shelf: str) -> None:
        self.client.unlink(PREFIX + shelf)

    def sign(self) -> bytes | None:
        return cast("bytes | None", self.client.get(SIGN))

    def turn_sign(self, content: bytes) -> None:
        self.client.set(SIGN, content)

    def close(self) -> None:
        self.client.close()
