"""The store on a Redis server: a hash a namespace, a string for the pointer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import cast

import redis

from warehouse.online.store import STAMP_BYTES, StoreUnreachable, Value

# A request for candidates waits for a read, and no other is answered meanwhile.
READ_SECONDS, WRITE_SECONDS = 0.25, 5
ROWS_A_CALL = 500  # the server does nothing else meanwhile
PREFIX = "adseq:"
POINTER = f"{PREFIX}served"
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
        self.client = redis.Redis.from_url(url, socket_timeout=WRITE_SECONDS, socket_connect_timeout=WRITE_SECONDS)
        self.reader = redis.Redis.from_url(url, socket_timeout=READ_SECONDS, socket_connect_timeout=READ_SECONDS)
        self._put, self._exchange = self.client.register_script(PUT), self.client.register_script(EXCHANGE)
        with self._answering():
            self.client.ping()

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except redis.RedisError as error:
            raise StoreUnreachable(
                f"the Redis server at {self.url.rpartition('@')[2]} does not answer ({error}): start it, or set "
                "ADSEQ_ONLINE__STORE to another address"
            ) from error

    def put(self, namespace: str, rows: Iterable[tuple[bytes, Value]]) -> int:
        remaining, stored = iter(rows), 0
        with self._answering():
            while batch := list(islice(remaining, ROWS_A_CALL)):
                stored += int(self._put(keys=[PREFIX + namespace], args=list(chain.from_iterable(batch))))
        return stored

    def exchange(self, namespace: str, key: bytes, before: bytes | None, after: bytes) -> bool:
        arguments = [key, after] if before is None else [key, after, before]
        with self._answering():
            return bool(self._exchange(keys=[PREFIX + namespace], args=arguments))

    def get(self, namespace: str, key: bytes) -> bytes | None:
        with self._answering():
            return cast("bytes | None", self.reader.hget(PREFIX + namespace, key))

    def everything(self, namespace: str) -> dict[bytes, bytes]:
        with self._answering():
            return dict(self.client.hscan_iter(PREFIX + namespace, count=ROWS_A_CALL))

    def remove(self, namespace: str, keys: Iterable[bytes]) -> int:
        wanted = list(keys)
        with self._answering():
            return int(self.client.hdel(PREFIX + namespace, *wanted)) if wanted else 0

    def count(self, namespace: str) -> int:
        with self._answering():
            return int(self.client.hlen(PREFIX + namespace))

    def namespaces(self) -> list[str]:
        with self._answering():
            names = [key.decode().removeprefix(PREFIX) for key in self.client.scan_iter(f"{PREFIX}*", _type="hash")]
        return sorted(names)

    def clear(self, namespace: str) -> None:
        with self._answering():
            self.client.unlink(PREFIX + namespace)

    def check(self, namespaces: Iterable[str]) -> None:
        """Check nothing: a server keeps a hash whole or not at all, and has none for a namespace without rows."""

    def current(self) -> bytes | None:
        with self._answering():
            return cast("bytes | None", self.client.get(POINTER))

    def switch(self, content: bytes) -> None:
        with self._answering():
            self.client.set(POINTER, content)

    def close(self) -> None:
        self.client.close()
        self.reader.close()
