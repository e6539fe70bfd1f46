"""The disk: the slot log, who the data directory belongs to, and the thread that syncs.

files       the file-system interface, and the real one        memory      one that crashes, tears and flips
records     one record of the log, and torn told from damaged  headers     what heads and seals a segment
recovery    reading the log back                               segments    writing it
identity    cluster, member, incarnation, boot count           directory   all of it, locked, in one call
writer      group commit on a thread of its own                base        what the floors above depend on
"""
