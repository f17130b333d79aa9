"""Certificates: issue and rotation by the node itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgegc.control.control import Control
    from edgegc.model.credential import Caller
    from edgegc.model.message import CertificateIssued, CertificateRequest


async def issue(control: Control, caller: Caller, request: CertificateRequest) -> CertificateIssued:
    """Sign the calling node's public key: its first, or a new one."""
    raise NotImplementedError
