"""A real etcd beside us, and etcd's own command line against us."""
