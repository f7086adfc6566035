"""The event log: the durable truth that every state is a fold of."""

from headrace.runtime.eventlog.log import Appended, ErasableLog, EventLog, LoggedRecord, Record, partition_of

__all__ = ["Appended", "ErasableLog", "EventLog", "LoggedRecord", "Record", "partition_of"]
