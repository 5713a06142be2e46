"""A real single-node Kafka, from jars, with no Docker and no system Java.

`jars` fetches Kafka once, `java` finds the Java that comes with the extra,
`server` runs the process, `commands` is what people type. Nothing here is
needed to talk to a Kafka that somebody else runs.
"""
