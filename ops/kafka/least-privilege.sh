#!/bin/sh
# What each part may do on the broker and nothing else, by the default names. Written by make docs; for other
# names, other users or several parts in one worker: stratarouter-runtime topics acls --principal User:NAME.
set -eu

kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-bridge --operation Read --topic cache-control
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-bridge --operation Write --topic cache-control
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-bridge --operation Read --topic dead-letter
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-bridge --operation Write --topic requests
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-bridge --operation Read --topic responses

kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-clients --operation Write --topic requests
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-clients --operation Read --topic responses

kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-enrich --operation Read --group stratarouter-enrich
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-enrich --operation Read --topic cache-control
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-enrich --operation Write --topic cache-control
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-enrich --operation Write --topic dead-letter
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-enrich --operation Write --topic executions
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-enrich --operation Read --topic requests
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-enrich --operation Read --topic responses
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-enrich --operation Write --topic responses
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-enrich --operation Write --topic responses --resource-pattern-type prefixed
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-enrich --operation Write --topic usage-deltas
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-enrich --operation Describe --transactional-id stratarouter-enrich. --resource-pattern-type prefixed
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-enrich --operation Write --transactional-id stratarouter-enrich. --resource-pattern-type prefixed

kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-execute --operation Read --group stratarouter-execute
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-execute --operation Read --topic cache-control
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-execute --operation Write --topic cache-control
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-execute --operation Write --topic dead-letter
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-execute --operation Read --topic executions
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-execute --operation Read --topic responses
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-execute --operation Write --topic responses
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-execute --operation Write --topic responses --resource-pattern-type prefixed
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-execute --operation Write --topic usage-deltas
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-execute --operation Describe --transactional-id stratarouter-execute. --resource-pattern-type prefixed
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-execute --operation Write --transactional-id stratarouter-execute. --resource-pattern-type prefixed

kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-observers --operation Describe --group stratarouter-enrich
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-observers --operation Describe --group stratarouter-execute
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-observers --operation Describe --group stratarouter-usage
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-observers --operation Describe --group stratarouter.dead-letters
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-observers --operation Describe --group stratarouter.replay. --resource-pattern-type prefixed
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-observers --operation DescribeConfigs --topic cache-control
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-observers --operation Read --topic cache-control
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-observers --operation DescribeConfigs --topic dead-letter
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-observers --operation Read --topic dead-letter
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-observers --operation Describe --topic executions
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-observers --operation DescribeConfigs --topic executions
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-observers --operation DescribeConfigs --topic requests
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-observers --operation Read --topic requests
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-observers --operation DescribeConfigs --topic responses
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-observers --operation Read --topic responses
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-observers --operation DescribeConfigs --topic usage
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-observers --operation Read --topic usage
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-observers --operation Describe --topic usage-deltas
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-observers --operation DescribeConfigs --topic usage-deltas

kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation Describe --group stratarouter-enrich
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation Describe --group stratarouter-execute
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation Describe --group stratarouter-usage
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation Read --group stratarouter.dead-letters
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation Read --group stratarouter.replay. --resource-pattern-type prefixed
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation DescribeConfigs --topic cache-control
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation Read --topic cache-control
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation Write --topic cache-control
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation DescribeConfigs --topic dead-letter
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation Read --topic dead-letter
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation Describe --topic executions
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation DescribeConfigs --topic executions
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation DescribeConfigs --topic requests
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation Read --topic requests
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation Write --topic requests
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation DescribeConfigs --topic responses
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation Read --topic responses
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation Read --topic responses --resource-pattern-type prefixed
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation Write --topic responses
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation Write --topic responses --resource-pattern-type prefixed
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation DescribeConfigs --topic usage
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation Read --topic usage
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation Describe --topic usage-deltas
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation DescribeConfigs --topic usage-deltas
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation Describe --transactional-id stratarouter.dead-letters. --resource-pattern-type prefixed
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation Write --transactional-id stratarouter.dead-letters. --resource-pattern-type prefixed
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation Describe --transactional-id stratarouter.replay. --resource-pattern-type prefixed
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation Write --transactional-id stratarouter.replay. --resource-pattern-type prefixed

kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-usage --operation Read --group stratarouter-usage
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-usage --operation Write --topic usage
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-usage --operation Read --topic usage-deltas
