"""The key-value machine against a second, naive telling of etcd's rules."""
