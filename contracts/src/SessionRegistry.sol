// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {
    Consent,
    Grant,
    ISessionRegistry,
    Limits,
    Registration,
    Scope,
    Session,
    SessionRef,
    Workspace
} from "./interfaces/ISessionRegistry.sol";
import {GrantLib} from "./libraries/GrantLib.sol";
import {OwnerSignature} from "./libraries/OwnerSignature.sol";

/// @title Registry of spending sessions
/// @notice See {ISessionRegistry} for the meaning of everything, and what may be relied on.
contract SessionRegistry is ISessionRegistry, AccessControl, EIP712 {
    /// @notice May register any session and revoke any session.
    bytes32 public constant OPERATOR_ROLE = keccak256("OPERATOR_ROLE");

    struct PublicKey {
        bytes32 x;
        bytes32 y;
    }

    struct Lowered {
        Limits limits;
        bool exists; // shares the second slot of the limits
    }

    /// @inheritdoc ISessionRegistry
    address public immutable anchors;

    mapping(uint256 id => Session) private _sessions;
    mapping(uint256 id => PublicKey) private _publicKeys;
    mapping(uint256 id => Lowered) private _lowered;

    mapping(bytes32 workspace => Workspace) private _workspaces;
    mapping(uint24 epoch => uint32) private _epochEndedAt;
    uint24 private _epochCount;

    /// @param operator First operator, who also administers the roles.
    /// @param anchors_ The AnchorRegistry.
    constructor(address operator, address anchors_) EIP712("Tallystick", "1") {
        _grantRole(DEFAULT_ADMIN_ROLE, operator);
        _grantRole(OPERATOR_ROLE, operator);
        anchors = anchors_;
    }

    /// @inheritdoc ISessionRegistry
    function register(Registration[] calldata registrations) external onlyRole(OPERATOR_ROLE) {
        for (uint256 i = 0; i < registrations.length; ++i) {
            _register(registrations[i]);
        }
    }

    /// @inheritdoc ISessionRegistry
    function rotate(SessionRef calldata from, Registration calldata to)
        external
        onlyRole(OPERATOR_ROLE)
    {
        Session storage old = _recognise(from.tokenId, from.owner, from.grantHash);
        if (!_isActive(old, block.timestamp)) {
            revert SessionNotActive(from.tokenId, block.timestamp);
        }
        uint256 id = _register(to);
        Session storage current = _sessions[id];
        // Were it not active yet, there would be a gap.
        if (!_isActive(current, block.timestamp)) revert SessionNotActive(id, block.timestamp);
        if (
            to.grant.owner != from.owner || current.epoch != old.epoch
                || (old.consent != Consent.None && current.consent == Consent.None)
        ) revert RotationInvalid(from.tokenId, id);

        _revoke(from, old, msg.sender);
        emit SessionRotated(from.tokenId, id);
    }

    /// @inheritdoc ISessionRegistry
    function revoke(SessionRef[] calldata sessions) external {
        bool isOperator = hasRole(OPERATOR_ROLE, msg.sender);
        for (uint256 i = 0; i < sessions.length; ++i) {
            if (!isOperator && msg.sender != sessions[i].owner) {
                revert NotOwnerOrOperator(msg.sender, sessions[i].owner);
            }
        }
        _revoke(sessions, msg.sender);
    }

    /// @inheritdoc ISessionRegistry
    function revokeBySignature(
        SessionRef[] calldata sessions,
        uint64 deadline,
        Consent kind,
        bytes calldata ownerSignature
    ) external {
        if (sessions.length == 0) revert NothingToRevoke(0);
        address owner = sessions[0].owner;
        uint256[] memory ids = new uint256[](sessions.length);
        for (uint256 i = 0; i < sessions.length; ++i) {
            if (sessions[i].owner != owner) revert NotOwnerOrOperator(owner, sessions[i].owner);
            ids[i] = sessions[i].tokenId;
        }
        bytes32 structHash = GrantLib.hashRevocation(ids, deadline);
        _checkRelayed(owner, structHash, deadline, kind, ownerSignature);
        _revoke(sessions, owner);
    }

    /// @inheritdoc ISessionRegistry
    function lowerLimits(uint256 id, Grant calldata grant, Limits calldata limits) external {
        if (msg.sender != grant.owner && !hasRole(OPERATOR_ROLE, msg.sender)) {
            revert NotOwnerOrOperator(msg.sender, grant.owner);
        }
        _lowerLimits(id, grant, limits, msg.sender);
    }

    /// @inheritdoc ISessionRegistry
    function lowerLimitsBySignature(
        uint256 id,
        Grant calldata grant,
        Limits calldata limits,
        uint64 deadline,
        Consent kind,
        bytes calldata ownerSignature
    ) external {
        bytes32 structHash = GrantLib.hashLowering(id, limits, deadline);
        _checkRelayed(grant.owner, structHash, deadline, kind, ownerSignature);
        _lowerLimits(id, grant, limits, grant.owner);
    }

    /// @inheritdoc ISessionRegistry
    function openWorkspace(bytes32 name) external onlyRole(OPERATOR_ROLE) {
        Workspace memory current = _workspaces[name];
        if (current.epoch != 0 && !current.closed) revert WorkspaceAlreadyOpen(name);
        _openEpoch(name);
    }

    /// @inheritdoc ISessionRegistry
    function closeWorkspace(bytes32 name) external onlyRole(OPERATOR_ROLE) {
        Workspace memory current = _workspaces[name];
        if (current.closed) revert WorkspaceIsClosed(name);

        _workspaces[name].closed = true;
        _epochEndedAt[current.epoch] = SafeCast.toUint32(block.timestamp);

        emit WorkspaceClosed(name, current.epoch, msg.sender);
    }

    /// @inheritdoc ISessionRegistry
    function session(uint256 id) external view returns (Session memory) {
        return _sessions[id];
    }

    /// @inheritdoc ISessionRegistry
    function workspace(bytes32 name) external view returns (Workspace memory) {
        return _workspaces[name];
    }

    /// @inheritdoc ISessionRegistry
    function isActive(uint256 id, uint256 timestamp) external view returns (bool) {
        return _isActive(_sessions[id], timestamp);
    }

    /// @inheritdoc ISessionRegistry
    function verifyGrant(uint256 id, Grant calldata grant) external view returns (bool) {
        return exists(id) && _isOf(_sessions[id], grant.owner, GrantLib.hash(grant));
    }

    /// @inheritdoc ISessionRegistry
    function limitsOf(uint256 id, Grant calldata grant) external view returns (Limits memory) {
        _recognise(id, grant.owner, GrantLib.hash(grant));
        return _limitsOf(id, grant);
    }

    /// @inheritdoc ISessionRegistry
    function grantHash(Grant calldata grant) external pure returns (bytes32) {
        return GrantLib.hash(grant);
    }

    /// @inheritdoc ISessionRegistry
    function scopeHash(Scope calldata scope) external pure returns (bytes32) {
        return GrantLib.hash(scope);
    }

    /// @inheritdoc ISessionRegistry
    function grantDigest(Grant calldata grant) external view returns (bytes32) {
        return _hashTypedDataV4(GrantLib.hash(grant));
    }

    /// @inheritdoc ISessionRegistry
    function revocationDigest(uint256[] calldata tokenIds, uint64 deadline)
        external
        view
        returns (bytes32)
    {
        return _hashTypedDataV4(GrantLib.hashRevocation(tokenIds, deadline));
    }

    /// @inheritdoc ISessionRegistry
    function loweringDigest(uint256 id, Limits calldata limits, uint64 deadline)
        external
        view
        returns (bytes32)
    {
        return _hashTypedDataV4(GrantLib.hashLowering(id, limits, deadline));
    }

    /// @inheritdoc ISessionRegistry
    function DOMAIN_SEPARATOR() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    /// @inheritdoc ISessionRegistry
    function passkeyOwner(bytes32 x, bytes32 y) external pure returns (address) {
        return OwnerSignature.passkeyOwner(x, y);
    }

    /// @inheritdoc ISessionRegistry
    function getEthAddress(uint256 id) external view returns (address) {
        if (!exists(id)) revert SessionUnknown(id);
        return _addressOf(id);
    }

    /// @inheritdoc ISessionRegistry
    function getPubkey(uint256 id) external view returns (bytes memory) {
        if (!exists(id)) revert SessionUnknown(id);
        PublicKey memory key = _publicKeys[id];
        // No point of secp256k1 has y = 0, so this is never a key that was stored.
        if (key.y == 0) revert PublicKeyNotStored(id);
        return _uncompressed(key.x, key.y);
    }

    /// @inheritdoc ISessionRegistry
    function tokenId(bytes calldata publicKey) external pure returns (uint256) {
        if (publicKey.length != 65 || publicKey[0] != 0x04) revert PublicKeyInvalid(publicKey);
        return uint256(keccak256(publicKey[1:]));
    }

    /// @inheritdoc ISessionRegistry
    function exists(uint256 id) public view returns (bool) {
        return _sessions[id].endsAt != 0;
    }

    function _register(Registration calldata registration) private returns (uint256 id) {
        Grant calldata grant = registration.grant;
        id = uint256(keccak256(abi.encode(registration.x, registration.y)));
        if (_addressOf(id) != grant.sessionKey) {
            revert SessionKeyMismatch(grant.sessionKey, _addressOf(id));
        }
        if (exists(id)) revert SessionExists(id);
        _checkValidity(grant.validFrom, grant.validUntil);
        bytes32 structHash = GrantLib.hash(grant);
        _checkConsent(registration, structHash);

        // The casts lose nothing: both times are at most validUntil, which fits in 32 bits.
        _sessions[id] = Session({
            grantCheck: GrantLib.check(grant.owner, structHash),
            epoch: _currentEpoch(grant.workspace),
            startsAt: uint32(Math.max(block.timestamp, grant.validFrom)),
            endsAt: uint32(grant.validUntil),
            consent: registration.consent,
            revoked: false
        });
        if (registration.storePublicKey) {
            _publicKeys[id] = PublicKey(registration.x, registration.y);
        }

        emit SessionRegistered(id, grant.owner, structHash, registration.consent, grant);
        emit PKPMinted(id, _uncompressed(registration.x, registration.y));
    }

    /// @dev Revokes those of `sessions` that are left, of which the caller has checked the authority.
    function _revoke(SessionRef[] calldata sessions, address by) private {
        bool anyLeft = false;
        for (uint256 i = 0; i < sessions.length; ++i) {
            SessionRef calldata ref = sessions[i];
            Session storage current = _recognise(ref.tokenId, ref.owner, ref.grantHash);
            if (current.revoked) continue;
            _revoke(ref, current, by);
            anyLeft = true;
        }
        if (!anyLeft) revert NothingToRevoke(sessions.length);
    }

    function _revoke(SessionRef calldata ref, Session storage current, address by) private {
        current.revoked = true;
        current.endsAt = uint32(Math.min(current.endsAt, block.timestamp));

        emit SessionRevoked(ref.tokenId, ref.grantHash, by);
    }

    function _lowerLimits(uint256 id, Grant calldata grant, Limits calldata limits, address by)
        private
    {
        bytes32 structHash = GrantLib.hash(grant);
        _recognise(id, grant.owner, structHash);
        Limits memory current = _limitsOf(id, grant);
        if (!_isLower(limits, current)) revert LimitsNotLower(id, current, limits);

        _lowered[id] = Lowered(limits, true);

        emit LimitsLowered(id, structHash, by, limits);
    }

    function _currentEpoch(bytes32 name) private returns (uint24) {
        Workspace memory current = _workspaces[name];
        if (current.closed) revert WorkspaceIsClosed(name);
        return current.epoch == 0 ? _openEpoch(name) : current.epoch;
    }

    /// @dev Epochs count from 1 over all workspaces, so that a session's names its workspace too.
    function _openEpoch(bytes32 name) private returns (uint24 epoch) {
        epoch = ++_epochCount;
        _workspaces[name] = Workspace({epoch: epoch, closed: false});

        emit WorkspaceOpened(name, epoch, msg.sender);
    }

    /// @dev The session that was registered with this grant of this owner.
    function _recognise(uint256 id, address owner, bytes32 structHash)
        private
        view
        returns (Session storage current)
    {
        current = _sessions[id];
        if (current.endsAt == 0) revert SessionUnknown(id);
        if (!_isOf(current, owner, structHash)) revert GrantMismatch(id, structHash);
    }

    function _isActive(Session storage current, uint256 timestamp) private view returns (bool) {
        uint32 epochEnd = _epochEndedAt[current.epoch];
        return current.startsAt <= timestamp && timestamp < current.endsAt
            && (epochEnd == 0 || timestamp < epochEnd);
    }

    function _limitsOf(uint256 id, Grant calldata grant) private view returns (Limits memory) {
        Lowered memory lowered = _lowered[id];
        return lowered.exists ? lowered.limits : grant.limits;
    }

    function _checkValidity(uint64 validFrom, uint64 validUntil) private view {
        if (
            validUntil <= block.timestamp || validUntil <= validFrom
                || validUntil > type(uint32).max
        ) revert ValidityInvalid(validFrom, validUntil, block.timestamp);
    }

    function _checkConsent(Registration calldata registration, bytes32 structHash) private view {
        Consent kind = registration.consent;
        bytes calldata signature = registration.ownerSignature;
        if (kind == Consent.None && signature.length == 0) return;
        _checkSignature(registration.grant.owner, structHash, kind, signature);
    }

    function _checkRelayed(
        address owner,
        bytes32 structHash,
        uint64 deadline,
        Consent kind,
        bytes calldata signature
    ) private view {
        if (block.timestamp > deadline) {
            revert DeadlineExpired(deadline, block.timestamp);
        }
        _checkSignature(owner, structHash, kind, signature);
    }

    function _checkSignature(
        address owner,
        bytes32 structHash,
        Consent kind,
        bytes calldata signature
    ) private view {
        bytes32 digest = _hashTypedDataV4(structHash);
        if (!OwnerSignature.isValid(kind, owner, digest, signature)) {
            revert OwnerSignatureInvalid(owner, kind, digest);
        }
    }

    function _isOf(Session storage current, address owner, bytes32 structHash)
        private
        view
        returns (bool)
    {
        return current.grantCheck == GrantLib.check(owner, structHash);
    }

    /// @dev Whether no limit rises and at least one falls.
    function _isLower(Limits calldata proposed, Limits memory current) private pure returns (bool) {
        bool noneRises = proposed.perTransactionMicroUsd <= current.perTransactionMicroUsd
            && proposed.perDayMicroUsd <= current.perDayMicroUsd
            && proposed.perWeekMicroUsd <= current.perWeekMicroUsd
            && proposed.perMonthMicroUsd <= current.perMonthMicroUsd
            && proposed.approvalAboveMicroUsd <= current.approvalAboveMicroUsd;
        return noneRises && keccak256(abi.encode(proposed)) != keccak256(abi.encode(current));
    }

    function _addressOf(uint256 id) private pure returns (address) {
        // forge-lint: disable-next-line(unsafe-typecast)
        return address(uint160(id));
    }

    function _uncompressed(bytes32 x, bytes32 y) private pure returns (bytes memory) {
        return abi.encodePacked(bytes1(0x04), x, y);
    }
}
