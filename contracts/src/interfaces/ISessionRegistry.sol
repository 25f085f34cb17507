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

/// @notice The parameters of a session: what the owner signs, what the chain records, what the
/// policy engine enforces. In every list, empty means "any".
/// @param owner Wallet that consents; zero when the owner has no wallet.
/// @param sessionKey Address of the session key, the session's identity on chain.
/// @param auditLog Id of the log, in the anchor registry, that will hold the session's records.
/// @param parent Struct hash of the grant of the session that delegates; zero when none does.
/// @param workspace Tenant that the session belongs to.
/// @param agentId Agent that spends.
/// @param permissions Actions that the agent may ask for.
/// @param merchants Payees that may be paid.
/// @param tokens Assets that may be spent.
/// @param chains Networks on which may be spent.
/// @param limits Spending limits.
/// @param conditions What else bounds the spending, as sentences that a wallet can show.
/// @param validFrom First second of validity, Unix time.
/// @param validUntil First second after validity, Unix time: the range is half-open.
/// @param salt Makes two otherwise equal grants differ.
struct Grant {
    address owner;
    address sessionKey;
    bytes32 auditLog;
    bytes32 parent;
    string workspace;
    string agentId;
    string[] permissions;
    string[] merchants;
    string[] tokens;
    string[] chains;
    Limits limits;
    string[] conditions;
    uint64 validFrom;
    uint64 validUntil;
    bytes32 salt;
}

/// @notice What the registry stores of a session: exactly one slot.
/// @param grantCheck First 23 bytes of the grant's EIP-712 struct hash.
/// @param startsAt First second in which the session is active, Unix time.
/// @param endsAt First second in which it no longer is, Unix time. Zero only for an unknown
/// session. Not after `startsAt` when a session was revoked before it started.
/// @param revoked True once revoked; final.
struct Session {
    bytes23 grantCheck;
    uint32 startsAt;
    uint32 endsAt;
    bool revoked;
}

/// @notice How the owner consented, as proven to the registry.
/// `None`: the operator's word only. `Eip712`: a secp256k1 signature over the grant.
enum Consent {
    None,
    Eip712
}

/// @title Registry of spending sessions
/// @notice Gives each session an identity, records its parameters and the owner's consent, and lets
/// owner or operator revoke it. A token id is `uint256(keccak256(x ‖ y))` of the session's public
/// key, so that its low 160 bits are the session key's address.
/// @dev Assumptions and limits, for whoever relies on this contract:
/// - It enforces no spending limit. Limits are enforced off chain, and audited against the grant
///   that `SessionRegistered` carries. Nor does it read conditions, or look for a parent: that a
///   child's grant is narrower than its parent's, an auditor checks on both grants.
/// - The operator is trusted to register what it will enforce. `Consent.None` is nobody's
///   signature; read the consent from the event.
/// - The stored check is 23 bytes long. To find another grant for a registered session takes
///   about 2^184 hashes; whoever chooses both grants beforehand needs about 2^92. The event
///   holds all 32 bytes of the hash and the whole grant: an auditor should read the event.
/// - A public key is not checked to be a point of the curve. Nobody can sign for one that is not.
/// - Wallets that are contracts (ERC-1271) cannot sign here.
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

    /// @notice The session is over, for good.
    /// @param by Who revoked it: the owner or an operator.
    event SessionRevoked(uint256 indexed tokenId, bytes32 indexed grantHash, address indexed by);

    /// @notice The public key is not 65 bytes that start with 0x04.
    error PublicKeyInvalid(bytes publicKey);
    /// @notice The public key belongs to another address than the grant's session key.
    error SessionKeyMismatch(address sessionKey, address derived);
    /// @notice The session is registered already, and may have been revoked since.
    error SessionExists(uint256 tokenId);
    /// @notice No session has this token id.
    error SessionUnknown(uint256 tokenId);
    /// @notice The session was revoked before.
    error SessionAlreadyRevoked(uint256 tokenId);
    /// @notice The range is empty, lies in the past, or ends after the year 2106 (32 bits).
    error ValidityInvalid(uint64 validFrom, uint64 validUntil, uint256 blockTimestamp);
    /// @notice The signature over `digest` is not the owner's. `recovered` is zero when the
    /// signature is malformed (not 65 bytes, `s` in the upper half of the order, `v` not 27 or 28).
    error OwnerSignatureInvalid(address owner, address recovered, bytes32 digest);
    /// @notice The presented grant is not the one registered.
    error GrantMismatch(uint256 tokenId, bytes32 grantHash);
    /// @notice Only the grant's owner or an operator may revoke.
    error NotOwnerOrOperator(address caller, address owner);
    /// @notice The session was registered without storing its public key; see `PKPMinted`.
    error PublicKeyNotStored(uint256 tokenId);

    /// @notice Registers a session. Only for an operator.
    /// @param grant The parameters.
    /// @param publicKey The session key, uncompressed: 0x04 ‖ x ‖ y.
    /// @param ownerSignature 65 bytes r ‖ s ‖ v by `grant.owner` over `grantDigest(grant)`, or
    /// empty for `Consent.None`.
    /// @param storePublicKey Whether `getPubkey` shall answer; costs two more slots.
    /// @return id The session's token id.
    function register(
        Grant calldata grant,
        bytes calldata publicKey,
        bytes calldata ownerSignature,
        bool storePublicKey
    ) external returns (uint256 id);

    /// @notice Ends a session now. Only for the grant's owner or an operator; works once.
    /// @param grant The parameters, as registered: the registry keeps only their check.
    function revoke(uint256 id, Grant calldata grant) external;

    /// @notice What is stored of a session; all zero when there is none.
    function session(uint256 id) external view returns (Session memory);

    /// @notice Whether a session is registered. As in Lit Protocol's PKP contract.
    function exists(uint256 id) external view returns (bool);

    /// @notice Whether the session is active at Unix second `timestamp`, as far as this block
    /// knows: in [startsAt, endsAt). False for an unknown session. Stays true for the seconds
    /// before a revocation.
    function isActive(uint256 id, uint256 timestamp) external view returns (bool);

    /// @notice Whether the session is registered with this grant.
    function verifyGrant(uint256 id, Grant calldata grant) external view returns (bool);

    /// @notice EIP-712 struct hash of a grant; the same on every chain.
    function grantHash(Grant calldata grant) external pure returns (bytes32);

    /// @notice EIP-712 digest that the owner signs; other on every chain and registry.
    function grantDigest(Grant calldata grant) external view returns (bytes32);

    /// @notice EIP-712 domain separator of this registry on this chain.
    function DOMAIN_SEPARATOR() external view returns (bytes32);

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
