"""The multi-version key-value store: the state machine that is served where no other is named.

``types.py`` has its commands and results, ``check.py`` what is refused whatever the state, ``store.py`` keys and their
versions, ``txn.py`` transactions, ``machine.py`` the state machine around them. Its rules are etcd's (v3), to the
words of the errors.
"""
