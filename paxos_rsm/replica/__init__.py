"""The one loop that drives the protocol, the log on disk, the streams and the state machine."""
