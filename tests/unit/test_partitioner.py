"""Keys go to the partitions that other clients choose for them."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import DefaultPartitioner, murmur2
from hypothesis import given
from hypothesis import strategies as st

from stratarouter_runtime.processors.partitioner import POSITIVE, partitions_of

# Kafka's own test of its Java client: org.apache.kafka.common.utils.UtilsTest.testMurmur2.
KNOWN = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("times", [1, 50])
@pytest.mark.parametrize("key", KNOWN)
def test_a_key_goes_where_java_clients_send_it(key: bytes, times: int) -> None:
    assert partitions_of([key] * times, 1000) == [(KNOWN[key] & POSITIVE) % 1000] * times


@given(st.lists(st.binary(max_size=9), max_size=200), st.integers(1, 50))
def test_many_keys_at_once_go_where_each_alone_would(keys: list[bytes], count: int) -> None:
    everywhere = list(range(count))
    assert partitions_of(keys, count) == [DefaultPartitioner()(key, everywhere, everywhere) for key in keys]


def test_the_highest_bit_is_masked_not_negated() -> None:
    keys = [b"%03d" % number for number in range(200)]
    assert any(murmur2(key) > POSITIVE for key in keys)
    assert partitions_of(keys, 7) == [(murmur2(key) & POSITIVE) % 7 for key in keys]
