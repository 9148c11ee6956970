"""The route table: reading it, what is wrong in it and on which line, and resolving decisions."""

from __future__ import annotations

from collections import Counter

import pytest
from pydantic import SecretStr

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import ConfigurationError, LowConfidenceError, RouteTableError, UnknownRouteError
from stratarouter_runtime.records import Decision, Target
from stratarouter_runtime.route_file import VENDORS
from stratarouter_runtime.routes import (
    Budget,
    Price,
    ProviderSpec,
    Route,
    RouteBatch,
    RouteCache,
    RouteHedge,
    RouteTable,
    api_keys,
    check_confidence,
    order_targets,
)
from stratarouter_runtime.toml_table import line_of

WHOLE = """\
[providers.openai]

[providers.local]
kind = "simulator"
base_url = "http://127.0.0.1:8000/v1/"
max_concurrency = 8

[prices]
"local/llama" = { input = 0.1, output = 0.2 }

[routes.billing]
targets = [
  { provider = "openai", model = "gpt-4o-mini", params = { temperature = 0 }, weight = 3 },
  { provider = "local", model = "llama", weight = 1 },
]
system_prompt = "Be brief."
params = { max_tokens = 400 }
min_confidence = 0.5
cache = { enabled = true, ttl = 60, threshold = 0.9, share_across_tenants = true }
batch = { enabled = false, threshold = 0.99 }

[default]
targets = [{ provider = "openai", model = "gpt-4o" }]
"""
TABLE = RouteTable.from_toml(WHOLE)
SMALL = {"providers": {"openai": {}}, "routes": {"a": {"targets": [{"provider": "openai", "model": "m"}]}}}


def test_a_whole_table_is_read_as_written():
    assert TABLE.providers == {
        "openai": ProviderSpec("openai", api_key_env=("OPENAI_API_KEY",)),
        "local": ProviderSpec("local", "simulator", "http://127.0.0.1:8000/v1", (), 8),
    }
    assert TABLE.prices == {("local", "llama"): Price(0.1, 0.2)}
    assert TABLE.routes["billing"] == Route(
        "billing",
        (Target("openai", "gpt-4o-mini", {"temperature": 0}, 3.0), Target("local", "llama", weight=1.0)),
        system_prompt="Be brief.",
        params={"max_tokens": 400},
        min_confidence=0.5,
        cache=RouteCache(ttl=60, threshold=0.9, share_across_tenants=True),
        batch=RouteBatch(enabled=False, threshold=0.99),
        weighted=True,
    )
    assert TABLE.fallback == Route("default", (Target("openai", "gpt-4o"),))


def test_a_table_from_python_has_the_files_shape():
    assert RouteTable.from_dict(SMALL).routes["a"].targets == (Target("openai", "m"),)


@pytest.mark.parametrize(
    ("old", "new", "line", "rule"),
    [
        ('kind = "simulator"', 'kind = "magic"', 4, "providers.local.kind = 'magic' must be one of"),
        ('base_url = "http://127.0.0.1:8000/v1/"', 'base_url = "local"', 5, "must be an http:// or https:// URL"),
        ("max_concurrency = 8", "max_concurrency = 0", 6, "must be a whole number above 0"),
        ("max_concurrency = 8", "max_concurency = 8", 6, "is unknown; did you mean 'max_concurrency'?"),
        ('"local/llama" =', '"llama" =', 9, 'must be named "provider/model"'),
        ('"local/llama" =', '"azure/llama" =', 9, "names no configured provider ('azure')"),
        ("input = 0.1", "input = -1", 9, "must be a finite number"),
        (", weight = 1 }", ", weight = nan }", 14, "routes.billing.targets[1].weight = nan must be"),
        ('provider = "local", model', 'provider = "lokal", model', 14, "'lokal' is no configured provider"),
        ('"Be brief."', '" "', 16, "must be a non-empty string"),
        ("max_tokens = 400", "seed = 18_446_744_073_709_551_616", 17, "params.seed = 18446744073709551616 must"),
        ("max_tokens = 400", "stop = [2026-11-28]", 17, "routes.billing.params.stop = "),
        ("max_tokens = 400", "logit_bias = { a = inf }", 17, "routes.billing.params.logit_bias = "),
        ("temperature = 0", "temperature = nan", 13, "targets[0].params.temperature = nan must be what JSON can say"),
        ("min_confidence = 0.5", "min_confidence = 2", 18, "must be a number from 0 to 1"),
        ("ttl = 60", "ttl = 0", 19, "routes.billing.cache.ttl = 0 must be"),
        ("ttl = 60", "ttl = 315_360_001", 19, "cache.ttl = 315360001 must be a whole number from 1 to 315360000"),
        ("enabled = true", 'enabled = "yes"', 19, "must be true or false"),
        ("batch = {", "batsch = {", 20, "is unknown; did you mean 'batch'?"),
        ('[{ provider = "openai", model = "gpt-4o" }]', "[]", 23, "a list of at least one table"),
        ("[default]", "[fallback]", 22, "fallback is unknown"),
    ],
)
def test_a_mistake_is_named_with_file_line_key_and_rule(tmp_path, old: str, new: str, line: int, rule: str):
    path = tmp_path / "routes.toml"
    assert old in WHOLE
    path.write_text(WHOLE.replace(old, new, 1))
    with pytest.raises(RouteTableError) as wrong:
        RouteTable.load(path)
    [problem] = [one for one in wrong.value.message.splitlines() if rule in one]
    assert problem.startswith(f"{path}, line {line}: ")


@pytest.mark.parametrize(
    ("kind", "base_url", "key"),
    [
        ("openai", "https://api.openai.com/v1", "OPENAI_API_KEY"),
        ("openai-responses", "https://api.openai.com/v1", "OPENAI_API_KEY"),
        ("anthropic", "https://api.anthropic.com", "ANTHROPIC_API_KEY"),
        ("google", "https://generativelanguage.googleapis.com", "GEMINI_API_KEY"),
    ],
)
def test_a_vendor_needs_no_more_than_its_kind(kind: str, base_url: str, key: str):
    table = RouteTable.from_dict({**SMALL, "providers": {"openai": {"kind": kind}}})
    assert table.providers["openai"] == ProviderSpec("openai", kind, base_url, (key,))
    elsewhere = {"kind": kind, "base_url": "http://10.0.0.1:8000"}
    assert RouteTable.from_dict({**SMALL, "providers": {"openai": elsewhere}}).providers["openai"].api_key_env == ()


@pytest.mark.parametrize(("kind", "base_url"), [(kind, url) for kind, (url, _) in VENDORS.items()])
def test_a_vendors_own_url_keeps_its_key_with_a_slash_at_its_end(kind: str, base_url: str):
    """It went out without a key, and every call was refused."""
    plain, slashed = (
        RouteTable.from_dict({**SMALL, "providers": {"openai": {"kind": kind, "base_url": url}}}).providers["openai"]
        for url in (base_url, f"{base_url}/")
    )
    assert slashed == plain
    assert slashed.api_key_env


def test_limits_hedging_and_budgets_are_read():
    data = {
        "providers": {"openai": {"requests_per_minute": 60, "tokens_per_minute": 9000}},
        "routes": {"a": {**SMALL["routes"]["a"], "hedge": {"after_ms": 800}}},
        "budgets": {"acme": {"tenant": "acme", "route": "a", "window": "2h", "usd": 1.5}, "all": {"tokens": 7}},
    }
    table = RouteTable.from_dict(data)
    assert (table.providers["openai"].requests_per_minute, table.providers["openai"].tokens_per_minute) == (60, 9000)
    assert table.routes["a"].hedge == RouteHedge(800.0, 0.05)
    assert table.budgets == (
        Budget("acme", "acme", "a", 7200, 1.5),
        Budget("all", "*", "*", 86_400, tokens=7),
    )


@pytest.mark.parametrize(
    ("section", "rule"),
    [
        ({"budgets": {"b": {"window": "1d"}}}, "needs 'usd' or 'tokens'"),
        ({"budgets": {"b": {"usd": 1, "window": "soon"}}}, "must be a whole number with s, m, h or d"),
        ({"budgets": {"b": {"usd": 1, "window": "40d"}}}, "at most 31d"),
        ({"budgets": {"b": {"usd": 1, "route": "z"}}}, "is no route of this table"),
        ({"budgets": {"b": {"usd": 1, "route": "default"}}}, "is no route of this table"),
        ({"budgets": {"b": {"usd": 10**400}}}, "must be a finite number of US dollars"),
        ({"providers": {"openai": {"api_key_env": []}}}, "or a list of them"),
        ({"providers": {"openai": {"api_key_env": ["A", "A"]}}}, "names one twice"),
        ({"routes": {"a": {**SMALL["routes"]["a"], "hedge": {"max_share": 2}}}}, "at most 1"),
    ],
)
def test_a_mistake_in_limits_keys_and_budgets_is_named(section: dict[str, object], rule: str):
    with pytest.raises(RouteTableError, match=rule):
        RouteTable.from_dict({**SMALL, **section})


@pytest.mark.parametrize("usd", ["1" + "0" * 400, "1" + "0" * 5000, "0x1" + "0" * 5000])
def test_an_integer_that_no_float_holds_is_a_mistake_of_the_table(usd: str):
    with pytest.raises(RouteTableError):
        RouteTable.from_toml(f"{WHOLE}\n[budgets.b]\nusd = {usd}\n")


def test_a_budget_may_be_the_default_routes_and_covers_what_that_one_serves():
    table = RouteTable.from_toml(f'{WHOLE}\n[budgets.rest]\nroute = "default"\nusd = 1\n')
    [budget] = table.budgets
    covered = [budget.covers("acme", route_id) for route_id in ("default", "named nowhere", "billing")]
    assert covered == [True, True, False]
    data = {**SMALL, "routes": {"default": SMALL["routes"]["a"]}, "budgets": {"b": {"usd": 1, "route": "default"}}}
    [budget] = RouteTable.from_dict(data).budgets
    assert [budget.covers("acme", route_id) for route_id in ("default", "named nowhere")] == [True, False]


STRAY = {"targets": [{"provider": "azure", "model": "m"}]}


@pytest.mark.parametrize(
    ("section", "rule"),
    [
        ({"default": STRAY}, r"default\.targets\[0\]\.provider = 'azure' is no configured provider"),
        ({"routes": {"default": SMALL["routes"]["a"]}, "default": SMALL["routes"]["a"]}, "stands beside"),
        ({"routes": {"a": {**SMALL["routes"]["a"], "cache": {"tll": 60}}}}, "did you mean 'ttl'"),
        ({"routes": {"a": {**SMALL["routes"]["a"], "batch": {"spread": 1025}}}}, "spread = 1025 must be at most 1024"),
        ({"pricess": {}}, "pricess is unknown; did you mean 'prices'"),
        ({"prices": {"openai/": {"input": 1, "output": 1}}}, 'must be named "provider/model"'),
        ({"providers": {"openai": {"base_url": "ftp://10.0.0.1/v1"}}}, "must be an http:// or https:// URL"),
    ],
)
def test_a_mistake_in_any_part_of_a_table_is_named(section: dict[str, object], rule: str):
    with pytest.raises(RouteTableError, match=rule):
        RouteTable.from_dict({**SMALL, **section})


def test_all_mistakes_are_named_at_once():
    text = WHOLE.replace("ttl = 60", "ttl = 0").replace("min_confidence = 0.5", "min_confidence = 2")
    with pytest.raises(RouteTableError) as wrong:
        RouteTable.from_toml(text)
    assert len(wrong.value.message.splitlines()) == 2


def test_broken_toml_and_a_missing_file_are_said(tmp_path):
    with pytest.raises(RouteTableError, match=r"route table is not TOML: .*line 1"):
        RouteTable.from_toml("[routes\n[default]\n")
    with pytest.raises(RouteTableError, match=r"nowhere\.toml cannot be read"):
        RouteTable.load(tmp_path / "nowhere.toml")


def test_lines_are_found_in_arrays_of_tables_too():
    text = '[[routes.a.targets]]\nmodel = "x"\n[[routes.a.targets]]\nmodel = "y"\n'
    assert line_of(text, ("routes", "a", "targets", 1, "model")) == 4
    assert line_of(text, ("elsewhere",)) is None


@pytest.mark.parametrize("data", [{}, {"providers": {"openai": {}}}, {"routes": {"a": 1}}])
def test_a_table_that_routes_nowhere_is_refused(data: dict[str, object]):
    with pytest.raises(RouteTableError):
        RouteTable.from_dict(data)


# --- resolving -------------------------------------------------------------------------------------------------


def test_a_known_route_resolves_to_itself_and_an_unknown_one_to_the_default():
    assert TABLE.resolve(Decision("billing")) is TABLE.routes["billing"]
    assert TABLE.resolve(Decision("elsewhere")) is TABLE.fallback


def test_an_unknown_route_without_a_default_is_refused():
    with pytest.raises(UnknownRouteError, match="'elsewhere' is in no route table"):
        RouteTable.from_dict(SMALL).resolve(Decision("elsewhere"))


def test_a_decision_that_names_its_target_gets_that_target_and_the_routes_other_settings():
    route = TABLE.resolve(Decision("billing", provider="local", model="phi"))
    assert route.targets == (Target("local", "phi"),)
    assert route.system_prompt == "Be brief."
    assert not route.weighted


def test_a_decision_that_names_its_target_needs_no_route():
    route = RouteTable.from_dict(SMALL).resolve(Decision("elsewhere", provider="openai", model="m2"))
    assert route == Route("elsewhere", (Target("openai", "m2"),))


@pytest.mark.parametrize("decision", [Decision("a", provider="azure", model="m"), Decision("a", provider="openai")])
def test_a_target_that_is_not_configured_or_half_named_is_refused(decision: Decision):
    with pytest.raises(UnknownRouteError):
        TABLE.resolve(decision)


def test_low_confidence_is_refused_and_none_passes():
    route = TABLE.routes["billing"]
    check_confidence(route, Decision("billing", confidence=0.5))
    check_confidence(route, Decision("billing"))
    with pytest.raises(LowConfidenceError, match=r"0\.49 is below min_confidence = 0\.5"):
        check_confidence(route, Decision("billing", confidence=0.49))


def test_targets_keep_the_files_order_unless_a_weight_is_named():
    route = Route("a", (Target("p", "m1"), Target("p", "m2")))
    assert all(order_targets(route, f"r-{n}") == route.targets for n in range(50))


def test_weights_share_out_the_first_place_and_a_request_keeps_its_order():
    route = TABLE.routes["billing"]
    first = Counter(order_targets(route, f"r-{n}")[0].provider for n in range(4000))
    assert 0.70 < first["openai"] / 4000 < 0.80
    assert order_targets(route, "r-1") == order_targets(route, "r-1")
    assert set(map(id, order_targets(route, "r-1"))) == set(map(id, route.targets))


# --- the built-in table and keys -------------------------------------------------------------------------------


def test_the_built_in_table_sends_every_route_to_openai():
    config = RuntimeConfig(openai_api_key="sk-1")
    table = RouteTable.for_config(config)
    assert table.resolve(Decision("anything")).targets == (Target("openai", "gpt-4o-mini"),)
    assert table.providers["openai"].base_url == "https://api.openai.com/v1"
    assert _plain(api_keys(table.providers["openai"], config)) == ["sk-1"]


@pytest.mark.parametrize(
    ("keys", "providers", "target"),
    [
        ({}, ["openai"], Target("openai", "gpt-4o-mini")),
        ({"ANTHROPIC_API_KEY": "k"}, ["anthropic"], Target("anthropic", "claude-haiku-4-5")),
        ({"GEMINI_API_KEY": "k"}, ["google"], Target("google", "gemini-2.5-flash")),
        (
            {"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "k", "GEMINI_API_KEY": "k"},
            ["openai", "anthropic", "google"],
            Target("openai", "gpt-4o-mini"),
        ),
    ],
)
def test_the_built_in_table_has_the_vendors_whose_keys_are_there(monkeypatch, keys, providers, target):
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    config = RuntimeConfig()
    table = RouteTable.for_config(config)
    assert list(table.providers) == providers
    assert table.resolve(Decision("anything")).targets == (target,)
    own = Target(providers[-1], "a model of mine")
    assert table.resolve(Decision("r", provider=own.provider, model=own.model)).targets == (own,)
    if keys:
        assert [_plain(api_keys(spec, config)) for spec in table.providers.values()] == [["k"]] * len(providers)
    else:
        with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
            api_keys(table.providers["openai"], config)


def test_the_configured_file_is_the_table(tmp_path):
    path = tmp_path / "routes.toml"
    path.write_text(WHOLE)
    assert RouteTable.for_config(RuntimeConfig(routes_file=path)) == TABLE


def test_a_missing_key_is_said_by_its_variable(monkeypatch):
    monkeypatch.delenv("TEAM_KEY", raising=False)
    team = ProviderSpec("team", api_key_env=("TEAM_KEY",))
    with pytest.raises(ConfigurationError, match="'team' needs the environment variable TEAM_KEY"):
        api_keys(team, RuntimeConfig())
    monkeypatch.setenv("TEAM_KEY", "k")
    assert _plain(api_keys(team, RuntimeConfig())) == ["k"]


def test_several_keys_come_in_the_files_order(monkeypatch):
    monkeypatch.setenv("KEY_A", "a")
    monkeypatch.setenv("KEY_B", "b")
    table = RouteTable.from_dict({**SMALL, "providers": {"openai": {"api_key_env": ["KEY_A", "KEY_B"]}}})
    assert _plain(api_keys(table.providers["openai"], RuntimeConfig())) == ["a", "b"]


def _plain(keys: tuple[SecretStr | None, ...]) -> list[str | None]:
    return [None if key is None else key.get_secret_value() for key in keys]


def test_a_simulator_takes_no_key():
    assert api_keys(TABLE.providers["local"], RuntimeConfig()) == (None,)


def test_a_route_bounds_its_wrong_hits_and_the_table_knows_of_it():
    config = RuntimeConfig()
    table = {"providers": {"sim": {"kind": "simulator", "base_url": "http://127.0.0.1:1"}}}
    route = {"targets": [{"provider": "sim", "model": "m"}]}
    plain = RouteTable.from_dict(table | {"routes": {"a": route}})
    bounded = RouteTable.from_dict(table | {"routes": {"a": route | {"cache": {"max_error_rate": 0.02}}}})
    assert [plain.is_bounded(config), bounded.is_bounded(config)] == [False, True]
    assert plain.is_bounded(RuntimeConfig(cache_max_error_rate=0.01))
    assert bounded.routes["a"].cache.max_error_rate == 0.02
    with pytest.raises(RouteTableError, match=r"max_error_rate.*0\.001 to 0\.5"):
        RouteTable.from_dict(table | {"routes": {"a": route | {"cache": {"max_error_rate": 0.9}}}})
