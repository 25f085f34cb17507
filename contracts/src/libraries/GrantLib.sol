// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Grant, Limits, Scope} from "../interfaces/ISessionRegistry.sol";

/// @title EIP-712 struct hashes of what an owner signs
/// @dev https://eips.ethereum.org/EIPS/eip-712, sections encodeType and encodeData.
library GrantLib {
    // The type strings are literals, although some contain others, because the compiler hashes a
    // literal itself and would leave anything else to be hashed in every call.
    bytes32 internal constant LIMITS_TYPEHASH = keccak256(
        "Limits(" "uint64 perTransactionMicroUsd,uint64 perDayMicroUsd,uint64 perWeekMicroUsd,"
        "uint64 perMonthMicroUsd,uint64 approvalAboveMicroUsd)"
    );
    bytes32 internal constant SCOPE_TYPEHASH = keccak256(
        "Scope("
        "string agentId,string[] permissions,string[] merchants,string[] tokens,string[] chains,"
        "string[] conditions)"
    );
    bytes32 internal constant GRANT_TYPEHASH = keccak256(
        "Grant(" "address owner,address sessionKey,string workspace,Limits limits,Scope scope,"
        "uint64 validFrom,uint64 validUntil,bytes32 auditLog,bytes32 parent,bytes32 salt)" "Limits("
        "uint64 perTransactionMicroUsd,uint64 perDayMicroUsd,uint64 perWeekMicroUsd,"
        "uint64 perMonthMicroUsd,uint64 approvalAboveMicroUsd)" "Scope("
        "string agentId,string[] permissions,string[] merchants,string[] tokens,string[] chains,"
        "string[] conditions)"
    );
    bytes32 internal constant REVOCATION_TYPEHASH =
        keccak256("Revocation(uint256[] tokenIds,uint64 deadline)");
    bytes32 internal constant LOWERING_TYPEHASH = keccak256(
        "Lowering(uint256 tokenId,Limits limits,uint64 deadline)" "Limits("
        "uint64 perTransactionMicroUsd,uint64 perDayMicroUsd,uint64 perWeekMicroUsd,"
        "uint64 perMonthMicroUsd,uint64 approvalAboveMicroUsd)"
    );

    /// @notice Struct hash of a grant, of which `workspace` and `scope` are hashes already.
    function hash(Grant calldata grant) internal pure returns (bytes32) {
        // In two pieces: all fields at once are more than the stack holds.
        bytes memory who = abi.encode(
            GRANT_TYPEHASH,
            grant.owner,
            grant.sessionKey,
            grant.workspace,
            hash(grant.limits),
            grant.scope
        );
        bytes memory bounds =
            abi.encode(grant.validFrom, grant.validUntil, grant.auditLog, grant.parent, grant.salt);
        return keccak256(bytes.concat(who, bounds));
    }

    /// @notice Struct hash of the limits.
    function hash(Limits calldata limits) internal pure returns (bytes32) {
        return keccak256(abi.encode(LIMITS_TYPEHASH, limits));
    }

    /// @notice Struct hash of a scope.
    function hash(Scope calldata scope) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                SCOPE_TYPEHASH,
                keccak256(bytes(scope.agentId)),
                hash(scope.permissions),
                hash(scope.merchants),
                hash(scope.tokens),
                hash(scope.chains),
                hash(scope.conditions)
            )
        );
    }

    /// @notice Hash of an array of strings: of the elements' hashes, one after the other.
    function hash(string[] calldata values) internal pure returns (bytes32) {
        bytes32[] memory hashes = new bytes32[](values.length);
        for (uint256 i = 0; i < values.length; ++i) {
            hashes[i] = keccak256(bytes(values[i]));
        }
        return keccak256(abi.encodePacked(hashes));
    }

    /// @notice Struct hash of an owner's revocation of sessions.
    function hashRevocation(uint256[] memory tokenIds, uint64 deadline)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(
            abi.encode(REVOCATION_TYPEHASH, keccak256(abi.encodePacked(tokenIds)), deadline)
        );
    }

    /// @notice Struct hash of an owner's lowering of a session's limits.
    function hashLowering(uint256 tokenId, Limits calldata limits, uint64 deadline)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(LOWERING_TYPEHASH, tokenId, hash(limits), deadline));
    }

    /// @notice What the registry stores to recognise a grant and its owner by.
    function check(address owner, bytes32 structHash) internal pure returns (bytes19) {
        // forge-lint: disable-next-line(unsafe-typecast)
        return bytes19(keccak256(abi.encode(owner, structHash)));
    }
}
