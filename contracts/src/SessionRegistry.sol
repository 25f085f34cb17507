// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {Consent, Grant, ISessionRegistry, Session} from "./interfaces/ISessionRegistry.sol";
import {GrantLib} from "./libraries/GrantLib.sol";

/// @title Registry of spending sessions
/// @notice See {ISessionRegistry} for the meaning of everything, and what may be relied on.
contract SessionRegistry is ISessionRegistry, AccessControl, EIP712 {
    /// @notice May register any session and revoke any session.
    bytes32 public constant OPERATOR_ROLE = keccak256("OPERATOR_ROLE");

    struct PublicKey {
        bytes32 x;
        bytes32 y;
    }

    /// @inheritdoc ISessionRegistry
    address public immutable anchors;

    mapping(uint256 id => Session) private _sessions;
    mapping(uint256 id => PublicKey) private _publicKeys;

    /// @param operator First operator, who also administers the roles.
    /// @param anchors_ The AnchorRegistry.
    constructor(address operator, address anchors_) EIP712("Tallystick", "1") {
        _grantRole(DEFAULT_ADMIN_ROLE, operator);
        _grantRole(OPERATOR_ROLE, operator);
        anchors = anchors_;
    }

    /// @inheritdoc ISessionRegistry
    function register(
        Grant calldata grant,
        bytes calldata publicKey,
        bytes calldata ownerSignature,
        bool storePublicKey
    ) external onlyRole(OPERATOR_ROLE) returns (uint256 id) {
        id = tokenId(publicKey);
        if (_addressOf(id) != grant.sessionKey) {
            revert SessionKeyMismatch(grant.sessionKey, _addressOf(id));
        }
        if (exists(id)) revert SessionExists(id);
        _checkValidity(grant.validFrom, grant.validUntil);
        bytes32 structHash = GrantLib.hash(grant);
        Consent consent = _checkConsent(grant.owner, structHash, ownerSignature);

        // The casts lose nothing: both times are at most validUntil, which fits in 32 bits.
        _sessions[id] = Session({
            grantCheck: GrantLib.check(structHash),
            startsAt: uint32(Math.max(block.timestamp, grant.validFrom)),
            endsAt: uint32(grant.validUntil),
            revoked: false
        });
        if (storePublicKey) {
            _publicKeys[id] = PublicKey(bytes32(publicKey[1:33]), bytes32(publicKey[33:65]));
        }

        emit SessionRegistered(id, grant.owner, structHash, consent, grant);
        emit PKPMinted(id, publicKey);
    }

    /// @inheritdoc ISessionRegistry
    function revoke(uint256 id, Grant calldata grant) external {
        Session memory current = _sessions[id];
        if (current.endsAt == 0) revert SessionUnknown(id);
        if (current.revoked) revert SessionAlreadyRevoked(id);
        bytes32 structHash = GrantLib.hash(grant);
        if (current.grantCheck != GrantLib.check(structHash)) revert GrantMismatch(id, structHash);
        if (msg.sender != grant.owner && !hasRole(OPERATOR_ROLE, msg.sender)) {
            revert NotOwnerOrOperator(msg.sender, grant.owner);
        }

        current.revoked = true;
        current.endsAt = uint32(Math.min(current.endsAt, block.timestamp));
        _sessions[id] = current;

        emit SessionRevoked(id, structHash, msg.sender);
    }

    /// @inheritdoc ISessionRegistry
    function session(uint256 id) external view returns (Session memory) {
        return _sessions[id];
    }

    /// @inheritdoc ISessionRegistry
    function isActive(uint256 id, uint256 timestamp) external view returns (bool) {
        Session memory current = _sessions[id];
        return current.startsAt <= timestamp && timestamp < current.endsAt;
    }

    /// @inheritdoc ISessionRegistry
    function verifyGrant(uint256 id, Grant calldata grant) external view returns (bool) {
        return exists(id) && _sessions[id].grantCheck == GrantLib.check(GrantLib.hash(grant));
    }

    /// @inheritdoc ISessionRegistry
    function grantHash(Grant calldata grant) external pure returns (bytes32) {
        return GrantLib.hash(grant);
    }

    /// @inheritdoc ISessionRegistry
    function grantDigest(Grant calldata grant) external view returns (bytes32) {
        return _hashTypedDataV4(GrantLib.hash(grant));
    }

    /// @inheritdoc ISessionRegistry
    function DOMAIN_SEPARATOR() external view returns (bytes32) {
        return _domainSeparatorV4();
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
        return abi.encodePacked(bytes1(0x04), key.x, key.y);
    }

    /// @inheritdoc ISessionRegistry
    function exists(uint256 id) public view returns (bool) {
        return _sessions[id].endsAt != 0;
    }

    /// @inheritdoc ISessionRegistry
    function tokenId(bytes calldata publicKey) public pure returns (uint256) {
        if (publicKey.length != 65 || publicKey[0] != 0x04) revert PublicKeyInvalid(publicKey);
        return uint256(keccak256(publicKey[1:]));
    }

    function _addressOf(uint256 id) private pure returns (address) {
        // forge-lint: disable-next-line(unsafe-typecast)
        return address(uint160(id));
    }

    function _checkValidity(uint64 validFrom, uint64 validUntil) private view {
        if (
            validUntil <= block.timestamp || validUntil <= validFrom
                || validUntil > type(uint32).max
        ) revert ValidityInvalid(validFrom, validUntil, block.timestamp);
    }

    function _checkConsent(address owner, bytes32 structHash, bytes calldata signature)
        private
        view
        returns (Consent)
    {
        if (signature.length == 0) return Consent.None;
        bytes32 digest = _hashTypedDataV4(structHash);
        (address recovered, ECDSA.RecoverError failure,) =
            ECDSA.tryRecoverCalldata(digest, signature);
        if (failure != ECDSA.RecoverError.NoError || recovered != owner) {
            revert OwnerSignatureInvalid(owner, recovered, digest);
        }
        return Consent.Eip712;
    }
}
