"""What an answer cost, in USD: the route table's prices first, then the bundled data of genai-prices. No network.

Costs are floats rounded to 1e-9 USD. Rates have at most six decimals, so the float's own error (about 1e-16 of the
value) never reaches the last digit kept; Decimals would cost several microseconds a call and be turned into JSON
numbers all the same. An unknown price is None, never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from stratarouter_runtime.records import Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice, PriceCalculation

TOKENS_PER_RATE = 1_000_000
DECIMALS = 9
MAX_REMEMBERED = 10_000
"""Pairs of provider and model whose price is remembered; models named by requests must not fill the memory."""
PRICED_ON_THEIR_OWN = frozenset({"requests_kcount", "output_reasoning_mtok"})
"""Prices that our flat formula would miss: a fee a call, and reasoning at a rate of its own."""


@dataclass(frozen=True, slots=True)
class Rates:
    """USD per million tokens. ``cached`` is for input read from the provider's cache; None: as other input."""

    input: float
    output: float
    cached: float | None = None

    def cost_usd(self, usage: Usage) -> float:
        """Input (of which some cached) and output, at flat rates. Reasoning tokens are part of the output."""
        cached = self.input if self.cached is None else self.cached
        fresh_tokens = usage.input_tokens - usage.cached_tokens
        total = fresh_tokens * self.input + usage.cached_tokens * cached + usage.output_tokens * self.output
        return round(total / TOKENS_PER_RATE, DECIMALS)


@dataclass(frozen=True, slots=True)
class _Listed:
    """A model whose price depends on size or date: the library works it out each time (about 80 us).

    ``is_whole``: an answer has a price too; of many models the library knows the question's alone, or none.
    """

    provider_id: str
    model: str
    is_whole: bool = True


class Pricer:
    """Prices answers; after the first call for a model, about a microsecond each where its prices are flat.

    Args:
        overrides: the route table's own rates, by (provider, model).
        base_urls: each provider's base URL, by which the library recognises the vendor behind a name.
    """

    def __init__(
        self,
        overrides: Mapping[tuple[str, str], Rates] | None = None,
        base_urls: Mapping[str, str] | None = None,
    ) -> None:
        self._known: dict[tuple[str, str], Rates | _Listed | None] = {}
        self._overrides = dict(overrides or {})
        self._base_urls = dict(base_urls or {})

    def load(self) -> None:
        """Read the bundled prices, a few hundred milliseconds once, so that the first answer need not wait.

        From any thread.
        """
        self._find("openai", "gpt-4o-mini")

    def cost_usd(self, provider: str, model: str, usage: Usage) -> float | None:
        """USD, or None where the price or the usage is unknown.

        An answer without any token counted is one whose server does not count, not one that was free.
        """
        if usage.input_tokens <= 0 and usage.output_tokens <= 0:
            return None
        price = self._price(provider, model)
        if isinstance(price, Rates):
            return price.cost_usd(usage)
        return None if price is None else _listed_cost_usd(price, usage)

    def knows(self, provider: str, model: str) -> bool:
        """Whether a question with its answer will have a price."""
        price = self._price(provider, model)
        return price.is_whole if isinstance(price, _Listed) else price is not None

    def _price(self, provider: str, model: str) -> Rates | _Listed | None:
        key = (provider, model)
        if key in self._known:
            return self._known[key]
        price = self._overrides.get(key) or self._find(provider, model)
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[key] = price
        return price

    def _find(self, provider: str, model: str) -> Rates | _Listed | None:
        """The vendor is the one behind the base URL, else one whose id is exactly the provider's name."""
        listed = _ask_library(model, api_url=self._base_urls.get(provider))
        if listed is None:
            listed = _ask_library(model, provider_id=provider)
            if listed is None or listed.provider.id != provider.lower():
                # The library also matches parts of names: "local-mistral" is not Mistral and has not its prices.
                return None
        from genai_prices.types import ModelPrice  # noqa: PLC0415 - slow import

        prices = listed.model.prices
        flat = _flat_rates(prices) if isinstance(prices, ModelPrice) else None
        if flat is not None:
            return flat
        found = _Listed(listed.provider.id, model)
        return replace(found, is_whole=_listed_cost_usd(found, Usage(1, 1)) is not None)


def _ask_library(model: str, *, api_url: str | None = None, provider_id: str | None = None) -> PriceCalculation | None:
    import genai_prices  # noqa: PLC0415 - slow import

    usage = genai_prices.Usage(input_tokens=1, output_tokens=1)
    try:
        if api_url is not None:
            return genai_prices.calc_price(usage, model, provider_api_url=api_url)
        if provider_id is not None:
            return genai_prices.calc_price(usage, model, provider_id=provider_id)
    except LookupError:
        return None
    return None


def _flat_rates(prices: ModelPrice) -> Rates | None:
    """Rates where every price is one number and none is of a kind our formula lacks."""
    found = {name: value for name, value in vars(prices).items() if value is not None}
    if found.keys() & PRICED_ON_THEIR_OWN or not all(isinstance(value, Decimal) for value in found.values()):
        return None
    if "input_mtok" not in found or "output_mtok" not in found:
        return None
    cached = found.get("cache_read_mtok")
    return Rates(float(found["input_mtok"]), float(found["output_mtok"]), None if cached is None else float(cached))


def _listed_cost_usd(listed: _Listed, usage: Usage) -> float | None:
    import genai_prices  # noqa: PLC0415 - slow import

    counted = genai_prices.Usage(
        input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cache_read_tokens=usage.cached_tokens
    )
    try:
        price = genai_prices.calc_price(counted, listed.model, provider_id=listed.provider_id)
    except (LookupError, ValueError):
        # ValueError: counts that contradict each other. No number is better than an invented one.
        return None
    units = vars(price.model_price)
    priced = units.get("input_mtok") is not None and (units.get("output_mtok") is not None or not usage.output_tokens)
    return round(float(price.total_price), DECIMALS) if priced else None
