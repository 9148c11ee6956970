"""The topics' contract on its own: what it declares, and how a broker is compared with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from stratarouter_runtime import acls, contracts, topics
from stratarouter_runtime import config as settings
from stratarouter_runtime.acls import Acl, Operation, Resource
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import ConfigurationError, TopicContractError
from stratarouter_runtime.tools import status
from stratarouter_runtime.tools.dead_letters import DeadLetters
from stratarouter_runtime.tools.replay import Plan, Replay
from stratarouter_runtime.topics import Change, Difference, Existing, compare, load

TOPICS = {topic.name: topic for topic in load()}
AS_DECLARED = {name: Existing(topic.partitions, topic.settings()) for name, topic in TOPICS.items()}


def test_the_declared_names_are_the_configurations_defaults():
    config = RuntimeConfig()
    assert [topic.full_name(config) for topic in load()] == [topic.name for topic in load()]


def test_every_topic_setting_of_the_configuration_is_declared():
    named = {name for name in RuntimeConfig.model_fields if name.endswith("_topic")}
    assert named == {topic.setting for topic in load()}


def test_every_topics_schema_exists_and_every_schema_has_its_topic():
    assert {topic.schema for topic in load()} == set(contracts.schema_names())


def test_each_topic_holds_the_largest_record_it_is_for():
    base64_growth = 4 / 3
    assert TOPICS["requests"].max_message_bytes > settings.MAX_REQUEST_BYTES
    assert TOPICS["executions"].max_message_bytes > TOPICS["requests"].max_message_bytes
    assert TOPICS["responses"].max_message_bytes > settings.MAX_RESPONSE_BYTES
    assert TOPICS["dead-letter"].max_message_bytes > TOPICS["requests"].max_message_bytes * base64_growth


def test_a_broker_as_declared_shows_no_difference():
    assert compare(TOPICS, AS_DECLARED) == []


def test_a_missing_topic_is_one_difference():
    assert compare({"requests": TOPICS["requests"]}, {}, 3) == [Difference("requests", "topic", "3", None)]


def test_fewer_partitions_are_a_difference_and_more_are_none():
    topic = TOPICS["requests"]
    few, many = (Existing(count, topic.settings()) for count in (7, 9))
    assert compare({"r": topic}, {"r": few}) == [Difference("r", "partitions", "8", "7")]
    assert compare({"r": topic}, {"r": many}) == []


def test_a_topic_whose_order_counts_has_its_own_number_and_no_other():
    topic = TOPICS["cache-control"]
    assert compare({"c": topic}, {"c": AS_DECLARED["cache-control"]}, partitions=8) == []
    [difference] = compare({"c": topic}, {"c": Existing(4, topic.settings())})
    assert str(difference) == "topic c: partitions is 4, declared is 1"
    assert "delete it" in str(Change(difference))


def test_a_setting_that_differs_or_is_absent_is_a_difference():
    topic = TOPICS["requests"]
    found = Existing(8, topic.settings() | {"retention.ms": "1"})
    assert compare({"r": topic}, {"r": found}) == [Difference("r", "retention.ms", "604800000", "1")]
    assert {one.found for one in compare({"r": topic}, {"r": Existing(8, {})})} == {None}


@pytest.mark.parametrize(
    ("difference", "finding", "change"),
    [
        (Difference("r", "topic", "8", None), "topic r is missing", "create topic r with 8 partitions"),
        (
            Difference("r", "partitions", "8", "2"),
            "topic r: partitions is 2, declared is 8",
            "raise partitions of topic r from 2 to 8",
        ),
        (
            Difference("r", "retention.ms", "5", "1"),
            "topic r: retention.ms is 1, declared is 5",
            "set retention.ms of topic r from 1 to 5",
        ),
    ],
)
def test_differences_and_changes_read_as_sentences(difference: Difference, finding: str, change: str):
    assert str(difference) == finding
    assert str(Change(difference)) == change


def test_a_broken_contract_file_is_said(monkeypatch, tmp_path):
    path = tmp_path / "topics.toml"
    path.write_text('[[topics]]\nname = "requests"\n')
    monkeypatch.setattr(contracts, "topics_file", lambda: path)
    with pytest.raises(TopicContractError, match="is wrong"):
        topics.load()


def test_the_contract_files_are_found_in_an_installed_wheel_first(monkeypatch, tmp_path):
    installed = tmp_path / "_contracts"
    (installed / "schemas").mkdir(parents=True)
    (installed / "topics.toml").write_text("")
    monkeypatch.setattr(contracts, "_INSTALLED", installed)
    assert contracts.topics_file() == installed / "topics.toml"
    assert contracts.schemas_folder() == installed / "schemas"


def test_missing_contract_files_are_said_with_where_they_were_sought(monkeypatch, tmp_path):
    monkeypatch.setattr(contracts, "_INSTALLED", tmp_path / "installed")
    monkeypatch.setattr(contracts, "_CHECKOUT", tmp_path / "checkout")
    with pytest.raises(ConfigurationError, match=r"neither .*installed.* nor .*checkout"):
        contracts.topics_file()


def test_an_unknown_schema_is_refused_with_those_there_are():
    with pytest.raises(ConfigurationError, match=r"request\.v1"):
        contracts.schema("request.v9")


def test_the_script_of_least_rights_is_the_contracts() -> None:
    page = (Path(__file__).parents[2] / "ops" / "kafka" / "least-privilege.sh").read_text()
    assert page == acls.script(RuntimeConfig()), "run `make docs`"
    # Only execute reads what enrich writes, and nobody may do everything.
    assert "stratarouter-execute --operation Read --topic executions" in page
    assert "stratarouter-clients --operation Read --topic executions" not in page
    assert "--operation All" not in page


def _may(granted: list[Acl], operation: Operation, resource: Resource, name: str) -> bool:
    """Whether ``granted`` allows that, as the broker reads it: Read and Write bring Describe with them."""
    enough = {operation} | ({"Read", "Write"} if operation == "Describe" else set())
    return any(
        acl.resource == resource
        and acl.operation in enough
        and (name.startswith(acl.name) if acl.prefixed else name == acl.name)
        for acl in granted
    )


def test_operators_may_commit_and_publish_under_the_names_of_their_commands() -> None:
    config = RuntimeConfig(topic_prefix="p.", group_id="g")
    operators, observers = acls.required(config, ["operators"]), acls.required(config, ["observers"])
    for group in (DeadLetters(config)._group, Replay(config, Plan(()), go=False)._group):
        # The id as ``TransactionalPublisher`` makes it.
        transactional_id = f"{group}.p.requests.0"
        assert _may(operators, "Read", "group", group)
        assert _may(operators, "Write", "transactional-id", transactional_id)
        assert not _may(observers, "Read", "group", group)
        assert not _may(observers, "Describe", "transactional-id", transactional_id)
    assert _may(observers, "Describe", "group", DeadLetters(config)._group)
    for group, topic in status.inputs(config).values():
        for granted in (operators, observers):
            assert _may(granted, "Describe", "group", group)
            assert _may(granted, "Describe", "topic", topic)
        # What fences a worker, and moves what it has answered, is a worker's alone.
        assert not _may(operators, "Read", "group", group)
        assert not _may(operators, "Describe", "transactional-id", f"{group}.{topic}.0")


def test_what_operators_write_is_what_their_commands_write_and_observers_write_nothing() -> None:
    config = RuntimeConfig(topic_prefix="p.", group_id="g", reply_topic_prefix="replies")
    written = {
        acl.name for acl in acls.required(config, ["operators"]) if (acl.resource, acl.operation) == ("topic", "Write")
    }
    assert written == {"p.requests", "p.responses", "p.replies", "p.cache-control"}
    assert "Write" not in {acl.operation for acl in acls.required(config, ["observers"])}
    for part in ("operators", "observers"):
        granted = acls.required(config, [part])
        assert not any(_may(granted, "Read", "topic", name) for name in ("p.executions", "p.usage-deltas"))
        assert all(_may(granted, "DescribeConfigs", "topic", topic.full_name(config)) for topic in load())
