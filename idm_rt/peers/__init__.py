"""Networks of others that restore faces, to measure their speed beside ours. Nothing else in idm_rt uses them.

Their code comes from packages (``pip install 'idm-rt[peers]'``), never from here; the licences are those of the
packages and authors. No package but one has weights, so they are random: the time does not depend on them.
"""

from __future__ import annotations

from idm_rt.peers.networks import PEERS, OpenPeer, Peer, check_installed

__all__ = ["PEERS", "OpenPeer", "Peer", "check_installed"]
