"""The exchange between registries: operations both ways, bytes where they are wanted."""

from __future__ import annotations

from modelstore.sync.exchange import Direction, Objects, SyncResult, sync
from modelstore.sync.partners import Knowledge, Parcel, Partner, RegistryPartner, open_partner
from modelstore.sync.replica import Server

__all__ = [
    "Direction",
    "Knowledge",
    "Objects",
    "Parcel",
    "Partner",
    "RegistryPartner",
    "Server",
    "SyncResult",
    "open_partner",
    "sync",
]
