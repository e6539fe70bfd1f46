"""How a server that joins a cluster which runs comes to know who it is, and whom to dial.

The ids of a cluster's first members follow from their flags (config.py). Whoever comes later is told its ids by the
members that are there: an operator has added it under its peer URL, and by that it finds itself among them. What it
was told stands in its data directory from then on.

Until it has learned the configuration by the log or by a snapshot, it dials those that the members name to it, at each
start anew; after that, those of the configuration.

Under which addresses clients reach it, any member may say otherwise at a later start: it has that written into the
configuration then, where clients look for it. That is an entry which earlier versions do not know, and a server stops
at such an entry (rule 12). So in a cluster whose members were never changed it waits until all of them are connected,
and known to understand it (:data:`CHANGES_LEVEL`): until the last one is upgraded, say.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from paxos_rsm.config import ServerConfig
from paxos_rsm.errors import MembershipRefused, Unavailable
from paxos_rsm.paxos.changes import UpdateMember
from paxos_rsm.replica.api import ReplicaHandle
from paxos_rsm.storage.files import RealFiles, storage_error
from paxos_rsm.storage.identity import coming_identity
from paxos_rsm.transport import Description, describe, join_identity

__all__ = ["CHANGES_LEVEL", "identified", "peers_to_dial", "publish_addresses"]

log = logging.getLogger(__name__)

LOOK_S = 1.0
CHANGE_S = 10.0

CHANGES_LEVEL = 1
"""Of what a server says that it understands (transport/handshake.py): from here on it knows changes of the members."""


async def identified(config: ServerConfig) -> ServerConfig:
    """``config``, with the ids that this server goes by.

    Raises ConfigError where nobody answers, RefusedByCluster where no member waits for it, StorageError for an identity
    that does not hold.
    """
    try:
        identity = await asyncio.to_thread(coming_identity, RealFiles(), str(config.directory))
    except OSError as error:
        raise storage_error(
            error, f"looking into the data directory {config.directory} (--data-dir)"
        ) from error
    if identity is not None:
        if identity.restored_from:
            config = replace(config, restored_from=identity.restored_from)
        # One of the first members that comes back under other addresses has ids that do not follow from them any more.
        ours = (identity.cluster_id, identity.member_id) == (config.cluster_id, config.member_id)
        if identity.joined or (config.joins and not ours):
            return config.joined_as(identity.cluster_id, identity.member_id)
        return config
    if not config.joins:
        return config

    def mine(description: Description) -> tuple[int, int]:
        return join_identity(description, config.name, config.peer_url)

    return config.joined_as(*mine(await describe(config.urls_to_ask, check=mine)))


async def peers_to_dial(config: ServerConfig, *, formed: bool) -> Mapping[int, str]:
    """Member id to URL, of those to begin with; the configuration, once it is known, says who they are.

    Raises ConfigError and RefusedByCluster as :func:`~paxos_rsm.transport.describe` does.
    """
    if config.joined_ids is None:
        ids = config.member_ids
        return {ids[name]: config.peer_dial.get(name, url) for name, url in config.members.items()}
    if formed:
        return {}
    configuration = (await describe(config.urls_to_ask)).configuration
    members = configuration.members if configuration is not None else ()
    return {member.member_id: config.dial_url(member.name, member.peer_url) for member in members}


async def publish_addresses(
    replica: ReplicaHandle, config: ServerConfig, least_level: Callable[[], int]
) -> None:
    """Returns once the configuration says under which addresses clients reach this member.

    It waits for as long as there is no configuration that this member is in, or nobody who could change it, or a member
    that may not know such a change. ``least_level``: what all members of the configuration are known to understand.
    """
    waits = False
    while True:
        configuration = replica.status().configuration
        me = configuration.by_member_id(config.member_id) if configuration is not None else None
        if configuration is not None and me is not None and me.incarnation:
            if me.client_urls == config.client_urls:
                return
            # Whoever is here still has met the changes that there were.
            if configuration.changes or least_level() >= CHANGES_LEVEL:
                if await _published(replica, UpdateMember(me.member_id, client_urls=config.client_urls)):
                    return
            elif not waits:
                waits = True
                log.info(
                    "the addresses for clients are told to the others once every member is connected and of a version "
                    "that knows such a change"
                )
        await asyncio.sleep(LOOK_S)


async def _published(replica: ReplicaHandle, change: UpdateMember) -> bool:
    """Asks for the change; whether there is no use in asking again."""
    try:
        async with asyncio.timeout(CHANGE_S):
            await replica.change(change)
    except MembershipRefused as refusal:
        log.warning("the members do not take this server's addresses for clients: %s", refusal)
        return True
    except (TimeoutError, Unavailable):
        log.info("the addresses for clients could not be changed yet")
    return False
