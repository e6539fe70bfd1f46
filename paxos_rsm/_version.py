"""The one place where the version stands: the build reads it from here, and so does `paxos-rsm --version`."""

__all__ = ["__version__"]

__version__ = "0.1.0"
