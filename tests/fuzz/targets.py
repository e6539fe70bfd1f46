"""Every target, by name."""

from tests.fuzz import (
    targets_backups,
    targets_clients,
    targets_disk,
    targets_etcd,
    targets_peers,
    targets_services,
    targets_settings,
    targets_snapshots,
    targets_storage,
    targets_streams,
)
from tests.fuzz.target import Target

__all__ = ["TARGETS"]

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (
        targets_peers,
        targets_clients,
        targets_streams,
        targets_etcd,
        targets_services,
        targets_disk,
        targets_storage,
        targets_snapshots,
        targets_backups,
        targets_settings,
    )
    for target in module.TARGETS
}
