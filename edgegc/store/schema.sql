-- The schema a new database starts with: the source of truth. migrations.py brings older databases here;
-- a test holds that both ways end in the same schema. Times are Unix seconds, overlay addresses numbers, others text,
-- lists JSON text. Secrets: only HMAC digests, or AEAD boxes sealed with a key derived from master.key.

CREATE TABLE tenants (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    created_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE clusters (
    id                          TEXT PRIMARY KEY,
    tenant_id                   TEXT NOT NULL REFERENCES tenants (id),
    name                        TEXT NOT NULL,
    network_cidr                TEXT NOT NULL,
    mode                        TEXT NOT NULL CHECK (mode IN ('managed', 'uploaded')),
    provide_lighthouse          INTEGER NOT NULL CHECK (provide_lighthouse IN (0, 1)),
    provide_relay               INTEGER NOT NULL CHECK (provide_relay IN (0, 1)),
    lighthouse_port             INTEGER NOT NULL,
    lighthouse_public_addresses TEXT NOT NULL,
    -- X25519 private key of the box's own lighthouse, sealed; NULL until one was wanted.
    lighthouse_key              BLOB,
    allowed_routes              TEXT NOT NULL,
    certificate_lifetime_s      INTEGER NOT NULL,
    supersede_grace_s           INTEGER NOT NULL,
    policy                      TEXT NOT NULL,
    version                     INTEGER NOT NULL,
    -- The newest version that concerns every node, and when it was given.
    wide_version                INTEGER NOT NULL CHECK (wide_version <= version),
    wide_version_at             INTEGER NOT NULL,
    -- The newest version that concerns the box's own lighthouse alone.
    lighthouse_version          INTEGER NOT NULL DEFAULT 0 CHECK (lighthouse_version <= version),
    -- How many nodes there are: kept by the writes that make and delete nodes, so that nothing has to count.
    node_count                  INTEGER NOT NULL DEFAULT 0,
    -- Offset in network_cidr of the address given out last: allocation goes forward from here, so that an
    -- address is reused as late as possible.
    address_cursor              INTEGER NOT NULL,
    created_at                  INTEGER NOT NULL,
    updated_at                  INTEGER NOT NULL,
    UNIQUE (tenant_id, name)
) STRICT, WITHOUT ROWID;

-- Two lighthouses of the box can't share a UDP port.
CREATE UNIQUE INDEX clusters_lighthouse_port ON clusters (lighthouse_port) WHERE provide_lighthouse = 1;

CREATE TABLE authorities (
    id              TEXT PRIMARY KEY,
    cluster_id      TEXT NOT NULL REFERENCES clusters (id) ON DELETE CASCADE,
    fingerprint     TEXT NOT NULL UNIQUE,
    certificate_pem TEXT NOT NULL,
    private_key     BLOB NOT NULL,
    phase           TEXT NOT NULL CHECK (phase IN ('active', 'next', 'old')),
    not_after       INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    -- The version in which it got its phase, or in which its predecessor went: whoever applied that has followed.
    phase_version   INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX authorities_cluster ON authorities (cluster_id);
CREATE UNIQUE INDEX authorities_active ON authorities (cluster_id) WHERE phase = 'active';

CREATE TABLE signers (
    id          TEXT PRIMARY KEY,
    cluster_id  TEXT NOT NULL REFERENCES clusters (id) ON DELETE CASCADE,
    public_key  BLOB NOT NULL CHECK (length(public_key) = 32),
    private_key BLOB NOT NULL,
    phase       TEXT NOT NULL CHECK (phase IN ('active', 'next', 'old')),
    created_at  INTEGER NOT NULL,
    -- The first version whose bundles name it: whoever applied that trusts it.
    since_version INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX signers_cluster ON signers (cluster_id);
CREATE UNIQUE INDEX signers_active ON signers (cluster_id) WHERE phase = 'active';

CREATE TABLE enrolment_keys (
    id          TEXT PRIMARY KEY,
    cluster_id  TEXT NOT NULL REFERENCES clusters (id) ON DELETE CASCADE,
    digest      BLOB NOT NULL,
    label       TEXT,
    uses        INTEGER CHECK (uses IS NULL OR used <= uses),
    used        INTEGER NOT NULL DEFAULT 0,
    groups      TEXT NOT NULL,
    expires_at  INTEGER NOT NULL,
    revoked_at  INTEGER,
    created_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX enrolment_keys_cluster ON enrolment_keys (cluster_id, created_at);
CREATE INDEX enrolment_keys_expired ON enrolment_keys (expires_at);

-- nodes and certificates, the two tables that grow, have a rowid: with random keys as the primary b-tree every
-- insert would rewrite a page of wide rows somewhere in the middle. Measured when ids were random, per node at 1,000:
-- 8 KiB written instead of 19, and 1.6 times the rate. Each index is one more page that most writes write.
CREATE TABLE nodes (
    id                TEXT PRIMARY KEY,
    cluster_id        TEXT NOT NULL REFERENCES clusters (id) ON DELETE CASCADE,
    name              TEXT NOT NULL,
    role              TEXT NOT NULL CHECK (role IN ('member', 'admin')),
    -- The address as a number, so that it sorts and ranges as addresses do; NULL in an uploaded cluster.
    overlay_ip        INTEGER,
    mtu               INTEGER NOT NULL,
    groups            TEXT NOT NULL,
    listen_port       INTEGER,
    is_lighthouse     INTEGER NOT NULL DEFAULT 0 CHECK (is_lighthouse IN (0, 1)),
    is_relay          INTEGER NOT NULL DEFAULT 0 CHECK (is_relay IN (0, 1)),
    public_addresses  TEXT NOT NULL DEFAULT '[]',
    token_digest      BLOB NOT NULL,
    token_used_at     INTEGER,
    own_version       INTEGER NOT NULL DEFAULT 0,
    own_version_at    INTEGER,
    enrolment_key_id  TEXT REFERENCES enrolment_keys (id) ON DELETE SET NULL,
    enrolled_at       INTEGER,
    -- What the node says of itself, flushed from memory where it has changed.
    applied_version   INTEGER,
    reported_state    TEXT CHECK (reported_state IN ('ok', 'applying', 'failed')),
    error             TEXT,
    nebula_version    TEXT,
    created_at        INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL,
    -- The public key that a node of an uploaded cluster enrolled with: there is no certificate to remember it.
    enrolled_key      BLOB,
    UNIQUE (cluster_id, name),
    UNIQUE (cluster_id, overlay_ip)
) STRICT;
CREATE INDEX nodes_created ON nodes (cluster_id, created_at, id);
CREATE INDEX nodes_topology ON nodes (cluster_id) WHERE is_lighthouse = 1 OR is_relay = 1;
CREATE INDEX nodes_enrolment_key ON nodes (enrolment_key_id) WHERE enrolment_key_id IS NOT NULL;

-- When nodes were last heard of, flushed from memory now and then: of nearly all nodes each time, so in rows as narrow as
-- can be.
CREATE TABLE last_seen (
    node_id  TEXT PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    at       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE routes (
    cluster_id  TEXT NOT NULL REFERENCES clusters (id) ON DELETE CASCADE,
    cidr        TEXT NOT NULL,
    node_id     TEXT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    PRIMARY KEY (cluster_id, cidr)
) STRICT, WITHOUT ROWID;
CREATE INDEX routes_node ON routes (node_id);

CREATE TABLE certificates (
    fingerprint   TEXT PRIMARY KEY,
    -- Its authority's, and gone with that.
    cluster_id    TEXT NOT NULL,
    -- NULL: the box's own lighthouse.
    node_id       TEXT REFERENCES nodes (id) ON DELETE CASCADE,
    authority_id  TEXT NOT NULL REFERENCES authorities (id) ON DELETE CASCADE,
    public_key    BLOB NOT NULL CHECK (length(public_key) = 32),
    -- The address it speaks for.
    overlay_ip    INTEGER NOT NULL,
    pem           TEXT NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('current', 'superseded', 'revoked')),
    issued_at     INTEGER NOT NULL,
    not_before    INTEGER NOT NULL,
    not_after     INTEGER NOT NULL,
    -- When it is due to be signed again; NULL: not any more (its authority ends too soon).
    renew_at      INTEGER,
    -- Superseded by one that may less: blocklisted at this time, or as soon as the node has applied the
    -- version that carries the successor, whichever is first.
    blocklist_at  INTEGER,
    superseded_in INTEGER
) STRICT;
-- All of a node, one of them current.
CREATE UNIQUE INDEX certificates_node ON certificates (node_id, CASE state WHEN 'current' THEN '' ELSE fingerprint END);
CREATE UNIQUE INDEX certificates_current_box ON certificates (cluster_id) WHERE state = 'current' AND node_id IS NULL;
CREATE INDEX certificates_authority ON certificates (authority_id);
CREATE INDEX certificates_renewal_due ON certificates (renew_at) WHERE state = 'current' AND renew_at IS NOT NULL;
CREATE INDEX certificates_blocklist_due ON certificates (blocklist_at) WHERE state = 'superseded' AND blocklist_at IS NOT NULL;
CREATE INDEX certificates_expired ON certificates (not_after) WHERE state != 'current';
-- Addresses that a certificate still speaks for although its node has left them.
CREATE INDEX certificates_held_address ON certificates (cluster_id, overlay_ip) WHERE state = 'superseded' AND blocklist_at IS NOT NULL;

-- What every bundle of the cluster lists. Rows outlive the node they came from; expired ones leave with the
-- next cluster-wide bump.
CREATE TABLE blocklist (
    cluster_id   TEXT NOT NULL REFERENCES clusters (id) ON DELETE CASCADE,
    fingerprint  TEXT NOT NULL,
    not_after    INTEGER NOT NULL,
    PRIMARY KEY (cluster_id, fingerprint)
) STRICT, WITHOUT ROWID;
-- Each cluster-wide bump looks for expired ones, and there may be thousands that are not.
CREATE INDEX blocklist_expired ON blocklist (cluster_id, not_after);

-- What was uploaded, verbatim. Bodies are written and read in pieces; one that is not complete is nobody's, and goes
-- at the next start. Several bundles may share one: activating an old bundle copies nothing.
CREATE TABLE bundle_bodies (
    id          INTEGER PRIMARY KEY,
    cluster_id  TEXT NOT NULL REFERENCES clusters (id) ON DELETE CASCADE,
    digest      TEXT NOT NULL,
    complete    INTEGER NOT NULL CHECK (complete IN (0, 1)),
    body        BLOB NOT NULL
) STRICT;
CREATE INDEX bundle_bodies_digest ON bundle_bodies (cluster_id, digest);
CREATE INDEX bundle_bodies_incomplete ON bundle_bodies (id) WHERE complete = 0;

-- The history of an uploaded cluster; the newest one is active.
CREATE TABLE bundles (
    cluster_id   TEXT NOT NULL REFERENCES clusters (id) ON DELETE CASCADE,
    version      INTEGER NOT NULL,
    body_id      INTEGER NOT NULL REFERENCES bundle_bodies (id),
    digest       TEXT NOT NULL,
    size         INTEGER NOT NULL,
    uploaded_at  INTEGER NOT NULL,
    PRIMARY KEY (cluster_id, version)
) STRICT, WITHOUT ROWID;
CREATE INDEX bundles_body ON bundles (body_id);

CREATE TABLE api_tokens (
    id            TEXT PRIMARY KEY,
    digest        BLOB NOT NULL,
    label         TEXT,
    scopes        TEXT NOT NULL,
    expires_at    INTEGER,
    last_used_at  INTEGER,
    created_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    id          INTEGER PRIMARY KEY,
    at          INTEGER NOT NULL,
    actor       TEXT NOT NULL,
    action      TEXT NOT NULL,
    target      TEXT,
    request_id  TEXT NOT NULL,
    source      TEXT NOT NULL
) STRICT;
CREATE INDEX audit_at ON audit (at);
CREATE INDEX audit_refusals ON audit (id) WHERE action IN ('authentication.failed', 'request.forbidden');

-- Answers to requests that create something and carried an Idempotency-Key. Only keyed digests of who asked for what;
-- the answer is sealed with a key that nobody has who has not the Idempotency-Key too.
CREATE TABLE kept_answers (
    number       INTEGER PRIMARY KEY,
    digest       BLOB NOT NULL UNIQUE,
    body_digest  BLOB NOT NULL,
    answer       BLOB NOT NULL,
    expires_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX kept_answers_expired ON kept_answers (expires_at);

-- Single values: the renderer's revision, the newest persisted time, the box's identity.
CREATE TABLE meta (
    key    TEXT PRIMARY KEY,
    value  TEXT NOT NULL
) STRICT, WITHOUT ROWID;
