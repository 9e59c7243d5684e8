//! What was said: the keys, unchecked, in the one form shared by file, environment
//! and flags. Sections of the file are the fields of [`Settings`] that are structs;
//! the flag of `raft.heartbeat_interval_ms` is `--raft-heartbeat-interval-ms`, its
//! variable `NAUTILUS_RAFT_HEARTBEAT_INTERVAL_MS`, and so for every key.

use std::path::{Path, PathBuf};

use super::ConfigError;

/// Declares a layer: every field optional, readable from TOML and from the command
/// line, and laid over another layer field by field.
macro_rules! layer {
    ($(#[$meta:meta])* $name:ident {
        $( $(#[$field_meta:meta])* $field:ident : $type:ty, )*
        $( @section $(#[$section_meta:meta])* $section:ident : $section_type:ty, )*
    }) => {
        #[derive(Debug, Clone, Default, clap::Args, serde::Deserialize, serde::Serialize)]
        #[serde(deny_unknown_fields, default)]
        $(#[$meta])*
        pub(crate) struct $name {
            $(
                $(#[$field_meta])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub(crate) $field: Option<$type>,
            )*
            $( $(#[$section_meta])* #[command(flatten)] pub(crate) $section: $section_type, )*
        }

        impl $name {
            /// This layer where it says something, `below` where it does not.
            pub(crate) fn over(self, below: Self) -> Self {
                Self {
                    $( $field: self.$field.or(below.$field), )*
                    $( $section: self.$section.over(below.$section), )*
                }
            }
        }
    };
}

layer! {
    /// Every key of a node.
    #[command(next_help_heading = "Keys of the configuration (TOML key = flag with _ for -)")]
    Settings {
        /// Names the quorum; the same on all of its nodes. 1 to 64 of [a-z0-9-]
        #[arg(long, env = "NAUTILUS_CLUSTER_ID", value_name = "NAME")]
        cluster_id: String,
        /// Identifies the node in its quorum: a whole number from 1
        #[arg(long, env = "NAUTILUS_NODE_ID", value_name = "N")]
        node_id: u64,
        /// Where the node keeps everything; made if absent
        #[arg(long, env = "NAUTILUS_DATA_DIR", value_name = "DIR")]
        data_dir: PathBuf,
        /// What an empty data directory becomes: "genesis" founds a quorum, "join" enters one; "recover" waits for operators' shares, see `nautilus recover`
        #[arg(long, env = "NAUTILUS_BOOTSTRAP", value_name = "genesis|join|recover")]
        bootstrap: String,
        /// Peers to join through, host:port
        #[arg(long, env = "NAUTILUS_JOIN_ADDRESSES", value_delimiter = ',', value_name = "HOST:PORT,..")]
        join_addresses: Vec<String>,
        /// Who may ask for credentials, pinned at genesis: USER=FILE, a PEM or DER public key
        #[arg(long, env = "NAUTILUS_OPERATORS", value_delimiter = ',', value_name = "USER=FILE,..")]
        operators: Vec<String>,
        /// How many operators must sign a change of the policy, pinned at genesis [default: more than half]
        #[arg(long, env = "NAUTILUS_OPERATORS_THRESHOLD", value_name = "K")]
        operators_threshold: u32,
        /// A listener without TLS for workers of this machine; loopback addresses only
        #[arg(long, env = "NAUTILUS_PLAIN_HTTP_LISTEN", value_name = "ADDR:PORT")]
        plain_http_listen: String,
        /// Seal tokens of the development judge (TOML; JSON when the name ends in .json)
        #[arg(long, env = "NAUTILUS_TOKENS_FILE", value_name = "FILE")]
        tokens_file: PathBuf,
        /// What runs while the node leads: "*" for all, "-*" for none, NAME for one, -NAME for all but one; the scheduler is kube-scheduler [default: *]
        #[arg(long, env = "NAUTILUS_CONTROLLERS", value_delimiter = ',', value_name = "NAME,..")]
        controllers: Vec<String>,
        /// The scheduler's profiles: a KubeSchedulerConfiguration (YAML)
        #[arg(long, env = "NAUTILUS_SCHEDULER_CONFIG", value_name = "FILE")]
        scheduler_config: PathBuf,
        /// Ranges of which every node gets a part for its pods, e.g. 10.244.0.0/16; one, or one of each family [default: none; others give them]
        #[arg(long, env = "NAUTILUS_CLUSTER_CIDRS", value_delimiter = ',', value_name = "CIDR,..")]
        cluster_cidrs: Vec<String>,
        /// Bits of prefix of a node's IPv4 part [default: 24]
        #[arg(long, env = "NAUTILUS_NODE_CIDR_BITS_IPV4", value_name = "BITS")]
        node_cidr_bits_ipv4: u8,
        /// The same of its IPv6 part [default: 64]
        #[arg(long, env = "NAUTILUS_NODE_CIDR_BITS_IPV6", value_name = "BITS")]
        node_cidr_bits_ipv6: u8,
        /// Log entries between two checkpoints [default: 50000]
        #[arg(long, env = "NAUTILUS_CHECKPOINT_EVERY", value_name = "ENTRIES")]
        checkpoint_every: u64,
        /// OTLP collector for traces (gRPC), e.g. http://127.0.0.1:4317
        #[arg(long, env = "NAUTILUS_OTLP_ENDPOINT", value_name = "URL")]
        otlp_endpoint: String,
        /// How long an orderly shutdown may take [default: 10000]
        #[arg(long, env = "NAUTILUS_SHUTDOWN_TIMEOUT_MS", value_name = "MS")]
        shutdown_timeout_ms: u64,
        @section
        /// `[peer]`
        peer: PeerSettings,
        @section
        /// `[api]`
        api: ApiSettings,
        @section
        /// `[etcd]`
        etcd: EtcdSettings,
        @section
        /// `[backup]`
        backup: BackupSettings,
        @section
        /// `[restore]`
        restore: RestoreSettings,
        @section
        /// `[attestation]`
        attestation: AttestationSettings,
        @section
        /// `[raft]`
        raft: RaftSettings,
        @section
        /// `[keys]`
        keys: KeysSettings,
        @section
        /// `[authentication]`
        authentication: AuthenticationSettings,
        @section
        /// `[audit]`
        audit: AuditSettings,
        @section
        /// `[sui]`
        sui: SuiSettings,
        @section
        /// `[log]`
        log: LogSettings,
    }
}

layer! {
    /// `[peer]`: the listener for the other masters.
    PeerSettings {
        /// peer.listen: bound here
        #[arg(id = "peer_listen", long = "peer-listen", env = "NAUTILUS_PEER_LISTEN", value_name = "ADDR:PORT")]
        listen: String,
        /// peer.advertise: told to the other masters [default: peer.listen]
        #[arg(id = "peer_advertise", long = "peer-advertise", env = "NAUTILUS_PEER_ADVERTISE", value_name = "HOST:PORT")]
        advertise: String,
    }
}

layer! {
    /// `[api]`: the listener for clients.
    ApiSettings {
        /// api.listen: bound here
        #[arg(id = "api_listen", long = "api-listen", env = "NAUTILUS_API_LISTEN", value_name = "ADDR:PORT")]
        listen: String,
        /// api.advertise: told to clients [default: api.listen]
        #[arg(id = "api_advertise", long = "api-advertise", env = "NAUTILUS_API_ADVERTISE", value_name = "HOST:PORT")]
        advertise: String,
        /// api.extra_sans: more names and addresses of the serving certificate
        #[arg(id = "api_extra_sans", long = "api-extra-sans", env = "NAUTILUS_API_EXTRA_SANS", value_delimiter = ',', value_name = "NAME,..")]
        extra_sans: Vec<String>,
        /// api.max_requests_inflight: reading requests at once; priority levels share the sum of
        /// this and the next [default: 400]
        #[arg(id = "api_max_requests_inflight", long = "api-max-requests-inflight", alias = "max-requests-inflight", env = "NAUTILUS_API_MAX_REQUESTS_INFLIGHT", value_name = "N")]
        max_requests_inflight: u32,
        /// api.max_mutating_requests_inflight: changing requests at once [default: 200]
        #[arg(id = "api_max_mutating_requests_inflight", long = "api-max-mutating-requests-inflight", alias = "max-mutating-requests-inflight", env = "NAUTILUS_API_MAX_MUTATING_REQUESTS_INFLIGHT", value_name = "N")]
        max_mutating_requests_inflight: u32,
        /// api.kubelet_certificate_authority: whose serving certificates of kubelets are good, "quorum"
        /// or a PEM file [default: anybody's]
        #[arg(id = "api_kubelet_certificate_authority", long = "api-kubelet-certificate-authority", alias = "kubelet-certificate-authority", env = "NAUTILUS_API_KUBELET_CERTIFICATE_AUTHORITY", value_name = "quorum|FILE")]
        kubelet_certificate_authority: String,
        /// api.kubelet_preferred_address_types: which of a node's addresses is taken, the best first
        /// [default: InternalIP,ExternalIP,Hostname,InternalDNS,ExternalDNS]
        #[arg(id = "api_kubelet_preferred_address_types", long = "api-kubelet-preferred-address-types", alias = "kubelet-preferred-address-types", env = "NAUTILUS_API_KUBELET_PREFERRED_ADDRESS_TYPES", value_delimiter = ',', value_name = "TYPE,..")]
        kubelet_preferred_address_types: Vec<String>,
    }
}

layer! {
    /// `[etcd]`: the listener for etcd clients. etcd's flags and variables are aliases.
    EtcdSettings {
        /// etcd.listen: bound here, TLS; without it the face is off
        #[arg(id = "etcd_listen", long = "etcd-listen", alias = "listen-client-urls", env = "NAUTILUS_ETCD_LISTEN", value_name = "ADDR:PORT")]
        listen: String,
        /// etcd.advertise: told to etcd clients [default: etcd.listen]
        #[arg(id = "etcd_advertise", long = "etcd-advertise", alias = "advertise-client-urls", env = "NAUTILUS_ETCD_ADVERTISE", value_name = "HOST:PORT")]
        advertise: String,
        /// etcd.max_request_bytes: of one request [default: 1572864]
        #[arg(id = "etcd_max_request_bytes", long = "etcd-max-request-bytes", alias = "max-request-bytes", env = "NAUTILUS_ETCD_MAX_REQUEST_BYTES", value_name = "BYTES")]
        max_request_bytes: u64,
        /// etcd.max_txn_ops: operations of one transaction [default: 128]
        #[arg(id = "etcd_max_txn_ops", long = "etcd-max-txn-ops", alias = "max-txn-ops", env = "NAUTILUS_ETCD_MAX_TXN_OPS", value_name = "N")]
        max_txn_ops: u64,
        /// etcd.quota_backend_bytes: above it writes are refused (NOSPACE); 0 is the default, less
        /// than 0 no quota [default: 2147483648]
        #[arg(id = "etcd_quota_backend_bytes", long = "etcd-quota-backend-bytes", alias = "quota-backend-bytes", env = "NAUTILUS_ETCD_QUOTA_BACKEND_BYTES", allow_hyphen_values = true, value_name = "BYTES")]
        quota_backend_bytes: i64,
        /// etcd.max_concurrent_streams: of one connection [default: 4096]
        #[arg(id = "etcd_max_concurrent_streams", long = "etcd-max-concurrent-streams", alias = "max-concurrent-streams", env = "NAUTILUS_ETCD_MAX_CONCURRENT_STREAMS", value_name = "N")]
        max_concurrent_streams: u32,
        /// etcd.auto_compaction_mode [default: periodic]
        #[arg(id = "etcd_auto_compaction_mode", long = "etcd-auto-compaction-mode", alias = "auto-compaction-mode", env = "NAUTILUS_ETCD_AUTO_COMPACTION_MODE", value_name = "periodic|revision")]
        auto_compaction_mode: String,
        /// etcd.auto_compaction_retention: hours or a duration, or revisions; 0 is off [default: 0]
        #[arg(id = "etcd_auto_compaction_retention", long = "etcd-auto-compaction-retention", alias = "auto-compaction-retention", env = "NAUTILUS_ETCD_AUTO_COMPACTION_RETENTION", value_name = "8|30m|1000")]
        auto_compaction_retention: String,
        /// etcd.auth_token: "simple", or "jwt,pub-key=FILE,priv-key=FILE,sign-method=..,ttl=.." [default: simple]
        #[arg(id = "etcd_auth_token", long = "etcd-auth-token", alias = "auth-token", env = "NAUTILUS_ETCD_AUTH_TOKEN", value_name = "KIND")]
        auth_token: String,
        /// etcd.auth_token_ttl: seconds that a simple token lives without use [default: 300]
        #[arg(id = "etcd_auth_token_ttl", long = "etcd-auth-token-ttl", alias = "auth-token-ttl", env = "NAUTILUS_ETCD_AUTH_TOKEN_TTL", value_name = "SECONDS")]
        auth_token_ttl: u64,
        /// etcd.bcrypt_cost: of users' passwords, 4 to 31 [default: 10]
        #[arg(id = "etcd_bcrypt_cost", long = "etcd-bcrypt-cost", alias = "bcrypt-cost", env = "NAUTILUS_ETCD_BCRYPT_COST", value_name = "N")]
        bcrypt_cost: u32,
        /// etcd.watch_progress_notify_interval [default: 10m]
        #[arg(id = "etcd_watch_progress_notify_interval", long = "etcd-watch-progress-notify-interval", alias = "watch-progress-notify-interval", env = "NAUTILUS_ETCD_WATCH_PROGRESS_NOTIFY_INTERVAL", value_name = "DURATION")]
        watch_progress_notify_interval: String,
    }
}

layer! {
    /// `[backup]`: snapshots that the leader makes without being asked.
    BackupSettings {
        /// backup.destination: a directory, or s3://BUCKET/PREFIX; nothing is made without it
        #[arg(id = "backup_destination", long = "backup-destination", env = "NAUTILUS_BACKUP_DESTINATION", value_name = "DIR|URL")]
        destination: String,
        /// backup.interval: from one snapshot to the next [default: 6h]
        #[arg(id = "backup_interval", long = "backup-interval", env = "NAUTILUS_BACKUP_INTERVAL", value_name = "DURATION")]
        interval: String,
        /// backup.keep: so many of the newest are kept [default: 28]
        #[arg(id = "backup_keep", long = "backup-keep", env = "NAUTILUS_BACKUP_KEEP", value_name = "N")]
        keep: u64,
        /// backup.max_age: older ones are removed, but for the newest [default: none for their age]
        #[arg(id = "backup_max_age", long = "backup-max-age", env = "NAUTILUS_BACKUP_MAX_AGE", value_name = "DURATION")]
        max_age: String,
        /// backup.recipients: operators' public keys that can open them [default: the quorum alone]
        #[arg(id = "backup_recipients", long = "backup-recipients", env = "NAUTILUS_BACKUP_RECIPIENTS", value_delimiter = ',', value_name = "KEY,..")]
        recipients: Vec<String>,
        /// backup.s3_endpoint: of a store that is not Amazon's
        #[arg(id = "backup_s3_endpoint", long = "backup-s3-endpoint", env = "NAUTILUS_BACKUP_S3_ENDPOINT", value_name = "URL")]
        s3_endpoint: String,
        /// backup.s3_region
        #[arg(id = "backup_s3_region", long = "backup-s3-region", env = "NAUTILUS_BACKUP_S3_REGION", value_name = "NAME")]
        s3_region: String,
        /// backup.s3_credentials: a file with aws_access_key_id and aws_secret_access_key
        #[arg(id = "backup_s3_credentials", long = "backup-s3-credentials", env = "NAUTILUS_BACKUP_S3_CREDENTIALS", value_name = "FILE")]
        s3_credentials: PathBuf,
        /// backup.s3_authorities: certificates that TLS to the store trusts, PEM [default: the system's]
        #[arg(id = "backup_s3_authorities", long = "backup-s3-authorities", env = "NAUTILUS_BACKUP_S3_AUTHORITIES", value_name = "FILE")]
        s3_authorities: PathBuf,
    }
}

layer! {
    /// `[restore]`: a snapshot that a quorum is founded with.
    #[derive(PartialEq, Eq)]
    RestoreSettings {
        /// restore.file: the snapshot; counts at genesis only
        #[arg(id = "restore_file", long = "restore-file", env = "NAUTILUS_RESTORE_FILE", value_name = "FILE")]
        file: PathBuf,
        /// restore.identity: the operator's private key that opens it
        #[arg(id = "restore_identity", long = "restore-identity", env = "NAUTILUS_RESTORE_IDENTITY", value_name = "FILE")]
        identity: PathBuf,
        /// restore.sealed_keys: for a snapshot sealed to the quorum: the file sealed-keys of a
        /// member of that quorum, which only its own platform and build can open
        #[arg(id = "restore_sealed_keys", long = "restore-sealed-keys", env = "NAUTILUS_RESTORE_SEALED_KEYS", value_name = "FILE")]
        sealed_keys: PathBuf,
        /// restore.signer: refuse a snapshot that another has signed
        #[arg(id = "restore_signer", long = "restore-signer", env = "NAUTILUS_RESTORE_SIGNER", value_name = "KEY")]
        signer: String,
        /// restore.bump_revision: stand so far above the snapshot's revision [default: 0]
        #[arg(id = "restore_bump_revision", long = "restore-bump-revision", env = "NAUTILUS_RESTORE_BUMP_REVISION", value_name = "N")]
        bump_revision: u64,
    }
}

layer! {
    /// `[attestation]`: what the node proves and what it accepts.
    AttestationSettings {
        /// attestation.provider: who makes the evidence; "auto" is the hardware that the
        /// machine has, and never simulated [default: auto]
        #[arg(id = "attestation_provider", long = "attestation-provider", env = "NAUTILUS_ATTESTATION_PROVIDER", value_name = "auto|nitro|snp|tdx|sgx|simulated")]
        provider: String,
        /// attestation.allow_simulated: accept simulated evidence, which proves nothing
        /// about hardware [default: false]
        #[arg(id = "attestation_allow_simulated", long = "attestation-allow-simulated", env = "NAUTILUS_ATTESTATION_ALLOW_SIMULATED", num_args = 0..=1, default_missing_value = "true", value_name = "true|false")]
        allow_simulated: bool,
        /// attestation.simulated_root: the signing root of simulated evidence
        #[arg(id = "attestation_simulated_root", long = "attestation-simulated-root", env = "NAUTILUS_ATTESTATION_SIMULATED_ROOT", value_name = "FILE")]
        simulated_root: PathBuf,
        /// attestation.platform_secret: this simulated platform's identity and sealing key
        #[arg(id = "attestation_platform_secret", long = "attestation-platform-secret", env = "NAUTILUS_ATTESTATION_PLATFORM_SECRET", value_name = "FILE")]
        platform_secret: PathBuf,
        /// attestation.tpm: a TPM 2.0 that releases the sealing key of TEEs that have none
        /// (TDX, Nitro) and counts starts
        #[arg(id = "attestation_tpm", long = "attestation-tpm", env = "NAUTILUS_ATTESTATION_TPM", value_name = "DEVICE")]
        tpm: PathBuf,
        /// attestation.tpm_pcrs: the registers that the TPM's key is bound to [default: 0,2,4,7,11]
        #[arg(id = "attestation_tpm_pcrs", long = "attestation-tpm-pcrs", env = "NAUTILUS_ATTESTATION_TPM_PCRS", value_delimiter = ',', value_name = "N,..")]
        tpm_pcrs: Vec<u8>,
        /// attestation.allowed_measurements: "self" (the running binary's) or hex [default: self]
        #[arg(id = "attestation_allowed_measurements", long = "attestation-allowed-measurements", env = "NAUTILUS_ATTESTATION_ALLOWED_MEASUREMENTS", value_delimiter = ',', value_name = "self|HEX,..")]
        allowed_measurements: Vec<String>,
        /// attestation.renewal_interval: how often evidence is renewed over a standing connection
        /// to another master [default: 10m]
        #[arg(id = "attestation_renewal_interval", long = "attestation-renewal-interval", env = "NAUTILUS_ATTESTATION_RENEWAL_INTERVAL", value_name = "DURATION")]
        renewal_interval: String,
        @section
        /// `[attestation.endorsements]`
        endorsements: EndorsementSettings,
    }
}

layer! {
    /// `[attestation.endorsements]`: where vendors' word on their platforms comes from.
    #[derive(PartialEq, Eq)]
    EndorsementSettings {
        /// attestation.endorsements.directory: files as `nautilus attest collateral import --into`
        /// leaves them, for as long as the quorum has none of its own
        #[arg(id = "attestation_endorsements_directory", long = "attestation-endorsements-directory", env = "NAUTILUS_ATTESTATION_ENDORSEMENTS_DIRECTORY", value_name = "DIR")]
        directory: PathBuf,
        /// attestation.endorsements.amd_kds: speaks as AMD's key distribution service does
        /// [default: AMD's own on its hardware, else none]
        #[arg(id = "attestation_endorsements_amd_kds", long = "attestation-endorsements-amd-kds", env = "NAUTILUS_ATTESTATION_ENDORSEMENTS_AMD_KDS", value_name = "URL")]
        amd_kds: String,
        /// attestation.endorsements.intel_pcs: speaks as Intel's provisioning certification
        /// service does [default: Intel's own on its hardware, else none]
        #[arg(id = "attestation_endorsements_intel_pcs", long = "attestation-endorsements-intel-pcs", env = "NAUTILUS_ATTESTATION_ENDORSEMENTS_INTEL_PCS", value_name = "URL")]
        intel_pcs: String,
    }
}

layer! {
    /// `[raft]`: timings. Elections must be well above heartbeat, round trip and sync.
    RaftSettings {
        /// raft.heartbeat_interval_ms [default: 50]
        #[arg(id = "raft_heartbeat_interval_ms", long = "raft-heartbeat-interval-ms", env = "NAUTILUS_RAFT_HEARTBEAT_INTERVAL_MS", value_name = "MS")]
        heartbeat_interval_ms: u64,
        /// raft.election_timeout_min_ms [default: 150]
        #[arg(id = "raft_election_timeout_min_ms", long = "raft-election-timeout-min-ms", env = "NAUTILUS_RAFT_ELECTION_TIMEOUT_MIN_MS", value_name = "MS")]
        election_timeout_min_ms: u64,
        /// raft.election_timeout_max_ms [default: 250]
        #[arg(id = "raft_election_timeout_max_ms", long = "raft-election-timeout-max-ms", env = "NAUTILUS_RAFT_ELECTION_TIMEOUT_MAX_MS", value_name = "MS")]
        election_timeout_max_ms: u64,
    }
}

layer! {
    /// `[keys]`: rotations of the quorum's keys.
    KeysSettings {
        /// keys.reencrypt_bytes_per_s: of old data sealed anew, at most [default: 33554432]
        #[arg(id = "keys_reencrypt_bytes_per_s", long = "keys-reencrypt-bytes-per-s", env = "NAUTILUS_KEYS_REENCRYPT_BYTES_PER_S", value_name = "BYTES")]
        reencrypt_bytes_per_s: u64,
    }
}

layer! {
    /// `[authentication]`: who says who somebody is. Flags are kube-apiserver's.
    AuthenticationSettings {
        /// authentication.config: other issuers whose tokens count (apiserver.config.k8s.io/v1 AuthenticationConfiguration)
        #[arg(id = "authentication_config", long = "authentication-config", env = "NAUTILUS_AUTHENTICATION_CONFIG", value_name = "FILE")]
        config: PathBuf,
        /// authentication.service_account_issuer: who issues service accounts' tokens, the same on all
        /// masters; the first signs, all are believed [default: https://kubernetes.default.svc.cluster.local]
        #[arg(id = "service_account_issuer", long = "service-account-issuer", env = "NAUTILUS_SERVICE_ACCOUNT_ISSUER", value_delimiter = ',', value_name = "ISSUER,..")]
        service_account_issuer: Vec<String>,
    }
}

layer! {
    /// `[audit]`: the log of requests to the Kubernetes API. Flags are those of kube-apiserver.
    AuditSettings {
        /// audit.policy_file: which requests are recorded, and how much of each (audit.k8s.io/v1 Policy); nothing without it
        #[arg(id = "audit_policy_file", long = "audit-policy-file", env = "NAUTILUS_AUDIT_POLICY_FILE", value_name = "FILE")]
        policy_file: PathBuf,
        /// audit.log_path: where events are written; - is standard output
        #[arg(id = "audit_log_path", long = "audit-log-path", env = "NAUTILUS_AUDIT_LOG_PATH", value_name = "FILE")]
        log_path: PathBuf,
        /// audit.log_maxsize: megabytes after which a new file is begun; 0 is never [default: 100]
        #[arg(id = "audit_log_maxsize", long = "audit-log-maxsize", env = "NAUTILUS_AUDIT_LOG_MAXSIZE", value_name = "MB")]
        log_maxsize: u64,
        /// audit.log_maxbackup: older files that are kept; 0 is all [default: 0]
        #[arg(id = "audit_log_maxbackup", long = "audit-log-maxbackup", env = "NAUTILUS_AUDIT_LOG_MAXBACKUP", value_name = "N")]
        log_maxbackup: usize,
        /// audit.log_maxage: days for which older files are kept; 0 is for ever [default: 0]
        #[arg(id = "audit_log_maxage", long = "audit-log-maxage", env = "NAUTILUS_AUDIT_LOG_MAXAGE", value_name = "DAYS")]
        log_maxage: u64,
    }
}

layer! {
    /// `[sui]`: the chain that Seal tokens are judged by.
    SuiSettings {
        /// sui.full_nodes: whom to ask, the preferred one first: grpc=URL or json-rpc=URL
        #[arg(id = "sui_full_nodes", long = "sui-full-nodes", env = "NAUTILUS_SUI_FULL_NODES", value_delimiter = ',', value_name = "FACE=URL,..")]
        full_nodes: Vec<String>,
        /// sui.package: the id of the package that issues Seal tokens: of its first version
        #[arg(id = "sui_package", long = "sui-package", env = "NAUTILUS_SUI_PACKAGE", value_name = "ID")]
        package: String,
        /// sui.layout: "registry": workers in the registry's table; "objects": a token is an object's id [default: registry]
        #[arg(id = "sui_layout", long = "sui-layout", env = "NAUTILUS_SUI_LAYOUT", value_name = "registry|objects")]
        layout: String,
        /// sui.registry: the id of the shared object WorkerRegistry
        #[arg(id = "sui_registry", long = "sui-registry", env = "NAUTILUS_SUI_REGISTRY", value_name = "ID")]
        registry: String,
        /// sui.token_struct: the token's struct where it is an object: module::Struct {member: kind, ..}
        #[arg(id = "sui_token_struct", long = "sui-token-struct", env = "NAUTILUS_SUI_TOKEN_STRUCT", value_name = "STRUCT")]
        token_struct: String,
        /// sui.stake_struct: the stake's struct, likewise
        #[arg(id = "sui_stake_struct", long = "sui-stake-struct", env = "NAUTILUS_SUI_STAKE_STRUCT", value_name = "STRUCT")]
        stake_struct: String,
        /// sui.cross_check: whether two full nodes must say the same [default: false]
        #[arg(id = "sui_cross_check", long = "sui-cross-check", env = "NAUTILUS_SUI_CROSS_CHECK", num_args = 0..=1, default_missing_value = "true", value_name = "true|false")]
        cross_check: bool,
        /// sui.verify: "checkpoints": nothing counts that validators did not sign; "none": full nodes are believed [default: none]
        #[arg(id = "sui_verify", long = "sui-verify", env = "NAUTILUS_SUI_VERIFY", value_name = "checkpoints|none")]
        verify: String,
        /// sui.committee: the validators of an epoch that is trusted, as JSON
        #[arg(id = "sui_committee", long = "sui-committee", env = "NAUTILUS_SUI_COMMITTEE", value_name = "FILE")]
        committee: PathBuf,
        /// sui.certificate_authority: whose certificates of full nodes are good, PEM [default: the system's]
        #[arg(id = "sui_certificate_authority", long = "sui-certificate-authority", env = "NAUTILUS_SUI_CERTIFICATE_AUTHORITY", value_name = "FILE")]
        certificate_authority: PathBuf,
        /// sui.request_timeout: how long a full node may take [default: 1500ms]
        #[arg(id = "sui_request_timeout", long = "sui-request-timeout", env = "NAUTILUS_SUI_REQUEST_TIMEOUT", value_name = "DURATION")]
        request_timeout: String,
        /// sui.hedge_after: after how long at the latest a second full node is asked too [default: 600ms]
        #[arg(id = "sui_hedge_after", long = "sui-hedge-after", env = "NAUTILUS_SUI_HEDGE_AFTER", value_name = "DURATION")]
        hedge_after: String,
        /// sui.requests_per_second: from this node to all full nodes together [default: 50]
        #[arg(id = "sui_requests_per_second", long = "sui-requests-per-second", env = "NAUTILUS_SUI_REQUESTS_PER_SECOND", value_name = "N")]
        requests_per_second: u32,
        /// sui.grace: how old the verdict on a known token may be while the chain is out of reach, more than sui.verdict_lifetime [default: 2h]
        #[arg(id = "sui_grace", long = "sui-grace", env = "NAUTILUS_SUI_GRACE", value_name = "DURATION")]
        grace: String,
        /// sui.verdict_lifetime: how long a verdict holds without asking the chain again, 1s to 30m [default: 30m]
        #[arg(id = "sui_verdict_lifetime", long = "sui-verdict-lifetime", env = "NAUTILUS_SUI_VERDICT_LIFETIME", value_name = "DURATION")]
        verdict_lifetime: String,
        /// sui.drain: how long a node drains whose stake was withdrawn or whose token has ended [default: 1h]
        #[arg(id = "sui_drain", long = "sui-drain", env = "NAUTILUS_SUI_DRAIN", value_name = "DURATION")]
        drain: String,
        /// sui.events_from: the first checkpoint whose events are followed [default: the next one]
        #[arg(id = "sui_events_from", long = "sui-events-from", env = "NAUTILUS_SUI_EVENTS_FROM", value_name = "N")]
        events_from: u64,
        /// sui.min_stake_view: what a stake needs to read, in MIST [default: 500000000]
        #[arg(id = "sui_min_stake_view", long = "sui-min-stake-view", env = "NAUTILUS_SUI_MIN_STAKE_VIEW", value_name = "MIST")]
        min_stake_view: u64,
        /// sui.min_stake_node: what it needs to run a worker [default: 1000000000]
        #[arg(id = "sui_min_stake_node", long = "sui-min-stake-node", env = "NAUTILUS_SUI_MIN_STAKE_NODE", value_name = "MIST")]
        min_stake_node: u64,
        /// sui.min_stake_administration: what it needs to administer [default: 10000000000]
        #[arg(id = "sui_min_stake_administration", long = "sui-min-stake-administration", env = "NAUTILUS_SUI_MIN_STAKE_ADMINISTRATION", value_name = "MIST")]
        min_stake_administration: u64,
    }
}

layer! {
    /// `[log]`: what is logged and how.
    LogSettings {
        /// log.format [default: human]
        #[arg(id = "log_format", long = "log-format", env = "NAUTILUS_LOG_FORMAT", value_name = "human|json")]
        format: String,
        /// log.filter, as in `info,nautilus_consensus=debug` [default: info,openraft=error]
        #[arg(id = "log_filter", long = "log-filter", env = "NAUTILUS_LOG_FILTER", value_name = "FILTER")]
        filter: String,
    }
}

impl Settings {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text)
    }

    /// Parses a file's text; `path` is for the message only.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })
    }

    /// The settings as a file.
    pub(crate) fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}
