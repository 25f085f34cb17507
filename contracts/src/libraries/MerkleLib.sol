// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Inclusion in an append-only log
/// @dev SHA-256 Merkle tree of RFC 6962, section 2.1. A leaf is hashed with the prefix 0x00 and an
/// inner node with 0x01, so that neither can be passed off as the other.
library MerkleLib {
    /// @notice Hash of the log entry `entry`.
    function leafHash(bytes calldata entry) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0x00), entry));
    }

    /// @notice Whether the leaf `leaf` is the one at `index`, counted from 0, of the tree of `size`
    /// leaves with this root (RFC 9162, section 2.1.3.2, whose names these are).
    /// @param path Siblings from the leaf upwards.
    function isIncluded(
        bytes32 leaf,
        uint64 index,
        uint64 size,
        bytes32 root,
        bytes32[] calldata path
    ) internal pure returns (bool) {
        if (index >= size) return false;
        (uint64 fn, uint64 sn, bytes32 r) = (index, size - 1, leaf);
        for (uint256 i = 0; i < path.length; ++i) {
            if (sn == 0) return false;
            if (fn & 1 == 1 || fn == sn) {
                r = nodeHash(path[i], r);
                // A node without a sibling rises to the level where it has one.
                while (fn & 1 == 0 && fn != 0) (fn, sn) = (fn >> 1, sn >> 1);
            } else {
                r = nodeHash(r, path[i]);
            }
            (fn, sn) = (fn >> 1, sn >> 1);
        }
        return sn == 0 && r == root;
    }

    /// @notice Hash of an inner node.
    function nodeHash(bytes32 left, bytes32 right) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0x01), left, right));
    }
}
