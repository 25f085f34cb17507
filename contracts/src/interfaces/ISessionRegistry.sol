// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice Spending limits in micro-USD (10^-6 USD). `type(uint64).max` means no limit.
/// @param perTransactionMicroUsd Largest single payment.
/// @param perDayMicroUsd Largest sum in any rolling 24 hours.
/// @param perWeekMicroUsd Largest sum in any rolling 7 days.
/// @param perMonthMicroUsd Largest sum in any rolling 30 days.
/// @param approvalAboveMicroUsd A payment above this amount waits for an operator's approval.
struct Limits {
    uint64 perTransactionMicroUsd;
    uint64 perDayMicroUsd;
    uint64 perWeekMicroUsd;
    uint64 perMonthMicroUsd;
    uint64 approvalAboveMicroUsd;
}

/// @notice Who may spend on what. In every list, empty means "any".
/// @param agentId Agent that spends.
/// @param permissions Actions that the agent may ask for.
/// @param merchants Payees that may be paid.
/// @param tokens Assets that may be spent.
/// @param chains Networks on which may be spent.
/// @param conditions What else bounds the spending, as sentences that a wallet can show.
struct Scope {
    string agentId;
    string[] permissions;
    string[] merchants;
    string[] tokens;
    string[] chains;
    string[] conditions;
}

/// @notice The parameters of a session: what the owner signs, what the chain records, what the
/// policy engine enforces. The owner's wallet shows `workspace` as text and `scope` with all its
/// lists; the chain gets their hashes, as EIP-712 encodes them, and everything else in clear.
/// @param owner Account that consents; zero when the owner has none. A passkey's is `passkeyOwner`.
/// @param sessionKey Address of the session key, the session's identity on chain.
/// @param workspace `keccak256` of the name of the tenant that the session belongs to.
/// @param limits Spending limits.
/// @param scope Struct hash of the `Scope`: `scopeHash(scope)`.
/// @param validFrom First second of validity, Unix time.
/// @param validUntil First second after validity, Unix time: the range is half-open.
/// @param auditLog Id of the log, in the anchor registry, that will hold the session's records.
/// @param parent Struct hash of the grant of the session that delegates; zero when none does.
/// @param salt Makes two otherwise equal grants differ.
struct Grant {
    address owner;
    address sessionKey;
    bytes32 workspace;
    Limits limits;
    bytes32 scope;
    uint64 validFrom;
    uint64 validUntil;
    bytes32 auditLog;
    bytes32 parent;
    bytes32 salt;
}

/// @notice How the owner consented, as proven to the registry.
/// `None`: the operator's word only.
/// `Eip712`: a secp256k1 signature over the grant.
/// `Erc1271`: the owner is a contract, and accepted the signature in the registering transaction.
/// `Passkey`: a WebAuthn assertion with user verification, by a P-256 key.
enum Consent {
    None,
    Eip712,
    Erc1271,
    Passkey
}

/// @notice A session to register.
/// @param grant The parameters.
/// @param x First coordinate of the session key's public key.
/// @param y Second coordinate.
/// @param storePublicKey Whether `getPubkey` shall answer; costs two more slots.
/// @param consent What `ownerSignature` is.
/// @param ownerSignature The owner's over `grantDigest(grant)`; empty for `None`.
/// `Eip712`: 65 bytes r ‖ s ‖ v. `Erc1271`: whatever the owner's contract takes.
/// `Passkey`: x ‖ y ‖ abi.encode(r, s, challengeIndex, typeIndex, authenticatorData,
/// clientDataJSON), the digest being the challenge.
struct Registration {
    Grant grant;
    bytes32 x;
    bytes32 y;
    bool storePublicKey;
    Consent consent;
    bytes ownerSignature;
}

/// @notice A registered session, named by the three topics of its `SessionRegistered`.
struct SessionRef {
    uint256 tokenId;
    address owner;
    bytes32 grantHash;
}

/// @notice What the registry stores of a session: exactly one slot.
/// @param grantCheck First 19 bytes of `keccak256(abi.encode(owner, grantHash))`.
/// @param epoch Epoch of its workspace; see `Workspace`.
/// @param startsAt First second in which the session is active, Unix time.
/// @param endsAt First second in which it no longer is, Unix time, unless its epoch ended before.
/// Zero only for an unknown session. Not after `startsAt` when a session was revoked before it
/// started.
/// @param consent How the owner consented.
/// @param revoked True once revoked; final.
struct Session {
    bytes19 grantCheck;
    uint24 epoch;
    uint32 startsAt;
    uint32 endsAt;
    Consent consent;
    bool revoked;
}

/// @notice A workspace's epoch begins when it is opened and ends when it is closed; its sessions end
/// with it. Opened again, it has another epoch.
/// @param epoch Number of the newest epoch, unique in the registry; zero before the first.
/// @param closed Whether that epoch has ended, and no session can be registered.
struct Workspace {
    uint24 epoch;
    bool closed;
}

/// @title Registry of spending sessions
/// @notice Gives each session an identity, records its parameters and the owner's consent, and lets
/// owner or operator revoke it. A token id is `uint256(keccak256(x ‖ y))` of the session's public
/// key, so that its low 160 bits are the session key's address.
/// @dev Assumptions and limits, for whoever relies on this contract:
/// - It enforces no spending limit. Limits are enforced off chain, and audited against the grant
///   that `SessionRegistered` carries. Nor does it read a scope, or look for a parent: that a
///   child's grant is narrower than its parent's, an auditor checks on both grants.
/// - The lists of a scope are not on the chain. Whoever has them proves them by their hash, which
///   the owner's signature covers and `SessionRegistered` carries.
/// - The operator is trusted to register what it will enforce. `Consent.None` is nobody's
///   signature; read the consent from the event.
/// - The limits of a grant never rise. They are lowered by whoever may revoke. Higher ones need
///   another session, and where the owner signed the first, a signature of the second.
/// - `Consent.Erc1271` is what the wallet answered in that block. It may answer otherwise later.
/// - A passkey's assertion is not tied to an origin here: authenticators see to that, and a key made
///   for another origin is another owner.
/// - The stored check is 19 bytes long. To find another grant for a registered session takes about
///   2^152 hashes; whoever chooses both grants beforehand needs about 2^76. The event holds all 32
///   bytes of the hash: an auditor should read the event.
/// - A public key is not checked to be a point of the curve. Nobody can sign for one that is not.
interface ISessionRegistry {
    /// @notice A session exists from this block on, with these parameters.
    /// @param grantHash EIP-712 struct hash of `grant`, all 32 bytes.
    event SessionRegistered(
        uint256 indexed tokenId,
        address indexed owner,
        bytes32 indexed grantHash,
        Consent consent,
        Grant grant
    );

    /// @notice The session's key, in the form of Lit Protocol's PKP contract.
    /// @param pubkey 65 bytes: 0x04 ‖ x ‖ y.
    event PKPMinted(uint256 indexed tokenId, bytes pubkey);

    /// @notice One session took the place of another: the first is revoked, the second registered,
    /// in the same second.
    event SessionRotated(uint256 indexed fromTokenId, uint256 indexed toTokenId);

    /// @notice The session is over, for good.
    /// @param by On whose authority: the owner or an operator.
    event SessionRevoked(uint256 indexed tokenId, bytes32 indexed grantHash, address indexed by);

    /// @notice From this block on these limits hold instead of the grant's.
    /// @param by On whose authority: the owner or an operator.
    event LimitsLowered(
        uint256 indexed tokenId, bytes32 indexed grantHash, address indexed by, Limits limits
    );

    /// @notice Sessions can be registered for the workspace.
    /// @param by The operator.
    event WorkspaceOpened(bytes32 indexed workspace, uint24 indexed epoch, address indexed by);

    /// @notice Every session registered for the workspace until now is over, for good.
    /// @param epoch The epoch that ended.
    /// @param by The operator.
    event WorkspaceClosed(bytes32 indexed workspace, uint24 indexed epoch, address indexed by);

    /// @notice The public key is not 65 bytes that start with 0x04.
    error PublicKeyInvalid(bytes publicKey);
    /// @notice The public key belongs to another address than the grant's session key.
    error SessionKeyMismatch(address sessionKey, address derived);
    /// @notice The session is registered already, and may have been revoked since.
    error SessionExists(uint256 tokenId);
    /// @notice No session has this token id.
    error SessionUnknown(uint256 tokenId);
    /// @notice Only a session that is active can be rotated, and only to one that is.
    error SessionNotActive(uint256 tokenId, uint256 blockTimestamp);
    /// @notice The range is empty, lies in the past, or ends after the year 2106 (32 bits).
    error ValidityInvalid(uint64 validFrom, uint64 validUntil, uint256 blockTimestamp);
    /// @notice The signature over `digest` is not the owner's, or is not of that kind.
    error OwnerSignatureInvalid(address owner, Consent consent, bytes32 digest);
    /// @notice The last second in which the signature could be used has passed.
    error DeadlineExpired(uint64 deadline, uint256 blockTimestamp);
    /// @notice The presented grant, or its owner, is not the one registered.
    error GrantMismatch(uint256 tokenId, bytes32 grantHash);
    /// @notice Only the grant's owner or an operator may do this.
    error NotOwnerOrOperator(address caller, address owner);
    /// @notice None of the `count` sessions was left to revoke.
    error NothingToRevoke(uint256 count);
    /// @notice A limit would rise, or none would fall.
    error LimitsNotLower(uint256 tokenId, Limits current, Limits proposed);
    /// @notice A session is rotated to one of the same owner and workspace, and with the owner's
    /// signature if it has one itself.
    error RotationInvalid(uint256 fromTokenId, uint256 toTokenId);
    /// @notice An operator closed the workspace and none has opened it since.
    error WorkspaceIsClosed(bytes32 workspace);
    /// @notice Nothing was to open.
    error WorkspaceAlreadyOpen(bytes32 workspace);
    /// @notice The session was registered without storing its public key; see `PKPMinted`.
    error PublicKeyNotStored(uint256 tokenId);

    /// @notice Registers sessions: all, or none when one is refused. Only for an operator.
    function register(Registration[] calldata registrations) external;

    /// @notice Registers a session and revokes the one whose place it takes, in one second. Both
    /// have the same owner and workspace and are active now. Only for an operator.
    function rotate(SessionRef calldata from, Registration calldata to) external;

    /// @notice Ends sessions now. Only for the owner of each, or an operator. Passes over those that
    /// were revoked before, so that they cannot save the others; at least one must be left.
    function revoke(SessionRef[] calldata sessions) external;

    /// @notice Ends sessions of one owner now, on the owner's signature. For anyone.
    /// @param deadline Last second in which the signature may be used, Unix time.
    /// @param kind What `ownerSignature` is.
    /// @param ownerSignature The owner's over `revocationDigest` of these sessions, in this order.
    function revokeBySignature(
        SessionRef[] calldata sessions,
        uint64 deadline,
        Consent kind,
        bytes calldata ownerSignature
    ) external;

    /// @notice Lowers limits at once. Only for the owner or an operator.
    /// @param grant The parameters, as registered.
    /// @param limits Each at most what is in force, at least one lower.
    function lowerLimits(uint256 id, Grant calldata grant, Limits calldata limits) external;

    /// @notice As `lowerLimits`, on the owner's signature. For anyone.
    /// @param deadline Last second in which the signature may be used, Unix time.
    /// @param kind What `ownerSignature` is.
    /// @param ownerSignature The owner's over `loweringDigest(id, limits, deadline)`.
    function lowerLimitsBySignature(
        uint256 id,
        Grant calldata grant,
        Limits calldata limits,
        uint64 deadline,
        Consent kind,
        bytes calldata ownerSignature
    ) external;

    /// @notice The kill switch: ends every session registered for a workspace until now, however
    /// many there are, and refuses others until the workspace is opened. Only for an operator.
    /// @param name `keccak256` of the workspace's name, as in `Grant`.
    function closeWorkspace(bytes32 name) external;

    /// @notice Opens a workspace that was closed; the sessions that it had stay ended. Only for an
    /// operator. The first registration opens a workspace by itself, and costs that much more.
    /// @param name `keccak256` of the workspace's name, as in `Grant`.
    function openWorkspace(bytes32 name) external;

    /// @notice What is stored of a session; all zero when there is none.
    function session(uint256 id) external view returns (Session memory);

    /// @notice Whether a session is registered. As in Lit Protocol's PKP contract.
    function exists(uint256 id) external view returns (bool);

    /// @notice Whether the session is active at Unix second `timestamp`, as far as this block
    /// knows: in [startsAt, endsAt), and before its epoch ended. False for an unknown session.
    /// Stays true for the seconds before a revocation.
    function isActive(uint256 id, uint256 timestamp) external view returns (bool);

    /// @notice Whether the session is registered with this grant.
    function verifyGrant(uint256 id, Grant calldata grant) external view returns (bool);

    /// @notice The limits in force: the grant's, or what they were lowered to.
    function limitsOf(uint256 id, Grant calldata grant) external view returns (Limits memory);

    /// @notice What is stored of a workspace; all zero before its first session.
    /// @param name `keccak256` of the workspace's name, as in `Grant`.
    function workspace(bytes32 name) external view returns (Workspace memory);

    /// @notice EIP-712 struct hash of a grant; the same on every chain.
    function grantHash(Grant calldata grant) external pure returns (bytes32);

    /// @notice EIP-712 struct hash of a scope: what a `Grant` holds of it.
    function scopeHash(Scope calldata scope) external pure returns (bytes32);

    /// @notice EIP-712 digest that the owner signs; other on every chain and registry.
    function grantDigest(Grant calldata grant) external view returns (bytes32);

    /// @notice EIP-712 digest of `Revocation(uint256[] tokenIds,uint64 deadline)`.
    function revocationDigest(uint256[] calldata tokenIds, uint64 deadline)
        external
        view
        returns (bytes32);

    /// @notice EIP-712 digest of `Lowering(uint256 tokenId,Limits limits,uint64 deadline)`.
    function loweringDigest(uint256 id, Limits calldata limits, uint64 deadline)
        external
        view
        returns (bytes32);

    /// @notice EIP-712 domain separator of this registry on this chain.
    function DOMAIN_SEPARATOR() external view returns (bytes32);

    /// @notice Address that stands for the passkey with this P-256 public key as an owner: the low
    /// 160 bits of `keccak256("Tallystick passkey" ‖ x ‖ y)`.
    function passkeyOwner(bytes32 x, bytes32 y) external pure returns (address);

    /// @notice Token id of a public key, uncompressed: 0x04 ‖ x ‖ y.
    function tokenId(bytes calldata publicKey) external pure returns (uint256);

    /// @notice Session key's address. As in Lit Protocol's PKP contract, but reverts for an
    /// unknown session.
    function getEthAddress(uint256 id) external view returns (address);

    /// @notice Session key, uncompressed: 0x04 ‖ x ‖ y. As in Lit Protocol's PKP contract, but
    /// reverts unless the key was stored at registration.
    function getPubkey(uint256 id) external view returns (bytes memory);

    /// @notice The AnchorRegistry that holds the logs named by the grants' `auditLog`.
    function anchors() external view returns (address);
}
