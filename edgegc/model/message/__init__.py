"""HTTP bodies in both directions, exactly as the API shows them; the typed client and the API share them.

Requests forbid unknown fields. Field limits that a reader of the API must know are :class:`msgspec.Meta`
constraints here, so that they are checked while decoding and shown in the OpenAPI document.

One module per noun; users say ``message.X`` and need not know which.
"""

from edgegc.model.message.audit import AuditEntry, AuditList
from edgegc.model.message.box import (
    Health,
    LighthouseList,
    Live,
    Resources,
    VersionInfo,
)
from edgegc.model.message.bundles import (
    BundleList,
    BundleView,
)
from edgegc.model.message.clusters import (
    CaView,
    ClusterCreate,
    ClusterList,
    ClusterUpdate,
    ClusterView,
)
from edgegc.model.message.common import (
    DEFAULT_MTU,
    RFC1918,
    Amount,
    Group,
    Groups,
    Id,
    Label,
    Mtu,
    Name,
    Port,
    Problem,
    Request,
    rfc3339,
)
from edgegc.model.message.credentials import (
    ApiTokenCreate,
    ApiTokenList,
    ApiTokenView,
    EnrolmentKeyCreate,
    EnrolmentKeyList,
    EnrolmentKeyView,
)
from edgegc.model.message.fleet import (
    Rollout,
    RolloutBehind,
    RolloutCounts,
)
from edgegc.model.message.maintenance import (
    BackupList,
    BackupView,
    Maintained,
)
from edgegc.model.message.node_calls import (
    CertificateIssued,
    CertificateRequest,
    EffectiveVersion,
    Enroll,
    Enrolled,
    Report,
)
from edgegc.model.message.nodes import (
    CertificateView,
    LighthouseSet,
    MtuUpdate,
    NodeBatch,
    NodeCreate,
    NodePage,
    NodeQuery,
    NodesCreated,
    NodeToken,
    NodeUpdate,
    NodeView,
)
from edgegc.model.message.policy import (
    Policy,
    PolicyChange,
    PolicyNode,
    PolicyRule,
)
from edgegc.model.message.rotation import (
    CaRotation,
    CaRotationStep,
    RotationStep,
    RotationWaiting,
)
from edgegc.model.message.tenants import (
    TenantCreate,
    TenantList,
    TenantUpdate,
    TenantView,
)
from edgegc.model.message.topology import (
    ClusterRoutes,
    NodeRoutes,
    Routes,
    Topology,
    TopologyLighthouse,
)

__all__ = [
    "DEFAULT_MTU",
    "RFC1918",
    "Amount",
    "ApiTokenCreate",
    "ApiTokenList",
    "ApiTokenView",
    "AuditEntry",
    "AuditList",
    "BackupList",
    "BackupView",
    "BundleList",
    "BundleView",
    "CaRotation",
    "CaRotationStep",
    "CaView",
    "CertificateIssued",
    "CertificateRequest",
    "CertificateView",
    "ClusterCreate",
    "ClusterList",
    "ClusterRoutes",
    "ClusterUpdate",
    "ClusterView",
    "EffectiveVersion",
    "Enroll",
    "Enrolled",
    "EnrolmentKeyCreate",
    "EnrolmentKeyList",
    "EnrolmentKeyView",
    "Group",
    "Groups",
    "Health",
    "Id",
    "Label",
    "LighthouseList",
    "LighthouseSet",
    "Live",
    "Maintained",
    "Mtu",
    "MtuUpdate",
    "Name",
    "NodeBatch",
    "NodeCreate",
    "NodePage",
    "NodeQuery",
    "NodeRoutes",
    "NodeToken",
    "NodeUpdate",
    "NodeView",
    "NodesCreated",
    "Policy",
    "PolicyChange",
    "PolicyNode",
    "PolicyRule",
    "Port",
    "Problem",
    "Report",
    "Request",
    "Resources",
    "Rollout",
    "RolloutBehind",
    "RolloutCounts",
    "RotationStep",
    "RotationWaiting",
    "Routes",
    "TenantCreate",
    "TenantList",
    "TenantUpdate",
    "TenantView",
    "Topology",
    "TopologyLighthouse",
    "VersionInfo",
    "rfc3339",
]
