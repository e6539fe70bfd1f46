"""State machines, pure: what the log replicates.

``base.py`` says what a user's machine looks like, ``sessions.py`` wraps it so that each command takes effect exactly
once, ``kv/`` is the machine that is served where no other is named. No clock, no disk, no protobuf here: codecs
are given to the machines.
"""
