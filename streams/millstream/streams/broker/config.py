"""What the broker is told: server.properties and its log set-up, written by us at every start. Pure."""

from __future__ import annotations

from pathlib import Path

from millstream.streams.broker.jars import KAFKA_VERSION

NODE_ID = 1
# A record of 1,000,000 bytes and what Kafka adds around it.
MESSAGE_BYTES_MAX = 1_048_588


def server_properties(*, data: Path, port: int, controller_port: int) -> str:
    """One process that is broker and controller, on the loopback address, with one copy of everything."""
    settings = {
        "process.roles": "broker,controller",
        "node.id": NODE_ID,
        "controller.quorum.voters": f"{NODE_ID}@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": data,
        # A broker that was killed may come back only when its old session has run out: 9 s by default.
        "broker.session.timeout.ms": 1500,
        "broker.heartbeat.interval.ms": 200,
        "auto.create.topics.enable": "false",
        "default.replication.factor": 1,
        "min.insync.replicas": 1,
        "message.max.bytes": MESSAGE_BYTES_MAX,
        "log.message.timestamp.type": "LogAppendTime",
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "offsets.retention.minutes": 525_600,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 500,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "num.recovery.threads.per.data.dir": 2,
        "background.threads": 2,
        "log.cleaner.threads": 1,
        "log.cleaner.dedupe.buffer.size": 8 * 1024 * 1024,
        "log.segment.bytes": 128 * 1024 * 1024,
        "log.index.size.max.bytes": 2 * 1024 * 1024,
        "queued.max.requests": 100,
    }
    head = f"# Kafka {KAFKA_VERSION}. Written anew at every start; changes made here are lost.\n"
    return head + "".join(f"{name}={value}\n" for name, value in settings.items())


def log_properties(*, file: Path) -> str:
    """Log4j 2: warnings and worse, and the lines that tell a start and a stop, into one file that rolls."""
    return f"""\
status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {file}
appender.file.filePattern = {file}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{yyyy-MM-dd HH:mm:ss,SSS}} %p %c{{1}} %m%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 2
rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
"""
