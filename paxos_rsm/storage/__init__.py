"""The disk: the slot log, snapshots, who the data directory belongs to, and the thread that syncs.

files       the file-system interface, and the real one        memory      one that crashes, tears and flips
records     one record of the log, and torn told from damaged  payloads    what it says
headers     what heads and seals a segment                     segments    writing the log, dropping its head
start       where the log starts; the order of dropping        recovery    reading it back
snapshots   taken, sent, fetched, pruned                       snapshot_format    the bytes of one
identity    cluster, member, incarnation, boot count           directory   all of it, locked, in one call
writer      group commit on a thread of its own                base        what the floors above depend on
verify      reading it all without a server
"""
