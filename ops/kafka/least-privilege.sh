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

kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation Write --topic cache-control
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation Read --topic dead-letter
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-operators --operation Read --topic usage

kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-usage --operation Read --group stratarouter-usage
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-usage --operation Write --topic usage
kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:stratarouter-usage --operation Read --topic usage-deltas
