"""Prices: the route table's first, the bundled list's next, None where neither knows."""

from decimal import Decimal

import genai_prices
import pytest
from genai_prices.types import ModelPrice, TieredPrices

from stratarouter_runtime.providers.pricing import MAX_REMEMBERED, Pricer, Rates, _flat_rates
from stratarouter_runtime.records import Usage

USAGE = Usage(input_tokens=1000, output_tokens=200, cached_tokens=400, reasoning_tokens=50)


def by_library(provider, model):
    counted = genai_prices.Usage(input_tokens=1000, output_tokens=200, cache_read_tokens=400)
    return float(genai_prices.calc_price(counted, model, provider_id=provider).total_price)


@pytest.mark.parametrize(
    ("provider", "model"),
    [("openai", "gpt-4o-mini"), ("openai", "gpt-4o"), ("openai", "gpt-4o-mini-2024-07-18"), ("openai", "o3"),
     ("anthropic", "claude-sonnet-4-5"), ("google", "gemini-2.5-pro"), ("deepseek", "deepseek-chat")],
)  # fmt: skip
def test_cost_is_the_librarys(provider, model):
    assert Pricer().cost_usd(provider, model, USAGE) == pytest.approx(by_library(provider, model), abs=1e-9)


def test_tier_beyond_a_size_is_charged():
    small, large = Usage(input_tokens=100_000), Usage(input_tokens=300_000)
    pricer = Pricer()
    first = pricer.cost_usd("google", "gemini-2.5-pro", small)
    assert pricer.cost_usd("google", "gemini-2.5-pro", large) > 3.5 * first


@pytest.mark.parametrize(
    ("provider", "model"),
    [("openai", "no-such-model"), ("nobody", "gpt-4o"), ("local-mistral", "mistral-large-latest"),
     ("openai-proxy", "gpt-4o"), ("my-google", "gemini-2.5-pro")],
)  # fmt: skip
def test_unknown_price_is_none_and_never_zero(provider, model):
    assert Pricer().cost_usd(provider, model, USAGE) is None


def test_answer_without_counted_tokens_has_no_known_cost():
    assert Pricer().cost_usd("openai", "gpt-4o-mini", Usage()) is None


def test_route_tables_price_wins_even_when_it_is_zero():
    pricer = Pricer({("openai", "gpt-4o"): Rates(1.0, 10.0), ("local", "m"): Rates(0.0, 0.0)})
    assert pricer.cost_usd("openai", "gpt-4o", USAGE) == pytest.approx(0.003)
    assert pricer.cost_usd("local", "m", USAGE) == 0.0


def test_vendor_is_known_by_its_base_url():
    pricer = Pricer(base_urls={"ours": "https://api.openai.com/v1", "openai": "http://127.0.0.1:9/v1"})
    assert pricer.cost_usd("ours", "gpt-4o-mini", USAGE) == pytest.approx(by_library("openai", "gpt-4o-mini"))
    assert pricer.cost_usd("openai", "gpt-4o-mini", USAGE) == pytest.approx(by_library("openai", "gpt-4o-mini"))


def test_cost_keeps_nine_decimals():
    assert Pricer({("p", "m"): Rates(0.001, 0.0)}).cost_usd("p", "m", Usage(input_tokens=1)) == 1e-9


def test_price_is_looked_up_once(monkeypatch):
    asked = []
    real = genai_prices.calc_price
    monkeypatch.setattr(genai_prices, "calc_price", lambda *a, **k: asked.append(a) or real(*a, **k))
    pricer = Pricer()
    for _ in range(50):
        pricer.cost_usd("openai", "gpt-4o-mini", USAGE)
    assert len(asked) == 1


def test_invented_model_names_do_not_fill_the_memory():
    pricer = Pricer()
    for number in range(MAX_REMEMBERED + 10):
        pricer.cost_usd("nobody", str(number), USAGE)
    assert len(pricer._known) <= MAX_REMEMBERED


@pytest.mark.parametrize(
    "prices",
    [
        ModelPrice(input_mtok=TieredPrices(Decimal(1), []), output_mtok=Decimal(1)),
        ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(1), requests_kcount=Decimal(5)),
        ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(1), output_reasoning_mtok=Decimal(5)),
        ModelPrice(input_mtok=Decimal(1)),
    ],
)
def test_price_that_a_flat_formula_would_miss_is_not_flattened(prices):
    assert _flat_rates(prices) is None


def test_a_model_that_is_priced_for_input_alone_has_a_price_only_where_nothing_came_out() -> None:
    pricer = Pricer()
    assert pricer.cost_usd("openai", "text-embedding-3-small", Usage(input_tokens=1_000_000)) == pytest.approx(0.02)
    assert pricer.cost_usd("openai", "text-embedding-3-small", Usage(1_000_000, 1)) is None
    assert pricer.cost_usd("openai", "whisper-1", Usage(1_000_000)) is None


def test_one_token_of_either_kind_is_priced():
    pricer = Pricer({("p", "m"): Rates(1.0, 2.0)})
    assert [pricer.cost_usd("p", "m", usage) for usage in (Usage(1, 0), Usage(0, 1))] == [1e-6, 2e-6]


def test_rates_are_flat_only_where_input_and_output_have_one():
    assert _flat_rates(ModelPrice(output_mtok=Decimal(1))) is None
    assert _flat_rates(ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(2))) == Rates(1.0, 2.0, None)


@pytest.mark.parametrize(
    ("provider", "model"),
    [("cerebras", "qwen-3-coder-480b"), ("azure", "davinci"), ("openai", "gpt-transcribe"), ("openai", "gpt-4o-mini")],
)
def test_a_price_is_known_where_an_answer_will_have_one(provider: str, model: str) -> None:
    pricer = Pricer()
    assert pricer.knows(provider, model) == (pricer.cost_usd(provider, model, Usage(10, 10)) is not None)
