// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Grant, Limits} from "../interfaces/ISessionRegistry.sol";

/// @title EIP-712 struct hash of a grant
/// @dev https://eips.ethereum.org/EIPS/eip-712, sections encodeType and encodeData.
library GrantLib {
    // The type strings are literals, although the second contains the first, because the compiler
    // hashes a literal itself and would leave anything else to be hashed in every call.
    bytes32 internal constant LIMITS_TYPEHASH = keccak256(
        "Limits(" "uint64 perTransactionMicroUsd,uint64 perDayMicroUsd,uint64 perWeekMicroUsd,"
        "uint64 perMonthMicroUsd,uint64 approvalAboveMicroUsd)"
    );
    bytes32 internal constant GRANT_TYPEHASH = keccak256(
        "Grant("
        "address owner,address sessionKey,bytes32 auditLog,bytes32 parent,string workspace,"
        "string agentId,string[] permissions,string[] merchants,string[] tokens,string[] chains,"
        "Limits limits,string[] conditions,uint64 validFrom,uint64 validUntil,bytes32 salt)"
        "Limits(" "uint64 perTransactionMicroUsd,uint64 perDayMicroUsd,uint64 perWeekMicroUsd,"
        "uint64 perMonthMicroUsd,uint64 approvalAboveMicroUsd)"
    );

    /// @notice Struct hash of a grant.
    function hash(Grant calldata grant) internal pure returns (bytes32) {
        // In three pieces: all fields at once are more than the stack holds.
        bytes memory identity = abi.encode(
            GRANT_TYPEHASH,
            grant.owner,
            grant.sessionKey,
            grant.auditLog,
            grant.parent,
            keccak256(bytes(grant.workspace)),
            keccak256(bytes(grant.agentId))
        );
        bytes memory lists = abi.encode(
            hash(grant.permissions), hash(grant.merchants), hash(grant.tokens), hash(grant.chains)
        );
        bytes memory bounds = abi.encode(
            hash(grant.limits),
            hash(grant.conditions),
            grant.validFrom,
            grant.validUntil,
            grant.salt
        );
        return keccak256(bytes.concat(identity, lists, bounds));
    }

    /// @notice The part of a struct hash that the registry stores: its first 23 bytes.
    function check(bytes32 structHash) internal pure returns (bytes23) {
        // forge-lint: disable-next-line(unsafe-typecast)
        return bytes23(structHash);
    }

    /// @notice Struct hash of the limits.
    function hash(Limits calldata limits) internal pure returns (bytes32) {
        return keccak256(abi.encode(LIMITS_TYPEHASH, limits));
    }

    /// @notice Hash of an array of strings: of the elements' hashes, one after the other.
    function hash(string[] calldata values) internal pure returns (bytes32) {
        bytes32[] memory hashes = new bytes32[](values.length);
        for (uint256 i = 0; i < values.length; ++i) {
            hashes[i] = keccak256(bytes(values[i]));
        }
        return keccak256(abi.encodePacked(hashes));
    }
}
