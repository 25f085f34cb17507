// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice Roots and inclusion proofs by the recursive definitions of RFC 6962, section 2.1: another
/// way to them than the one under test.
library MerkleTree {
    /// @dev MTH(D[start:end]), of leaves that are hashed already.
    function root(bytes32[] memory leaves, uint256 start, uint256 end)
        internal
        pure
        returns (bytes32)
    {
        if (start == end) return sha256("");
        if (end - start == 1) return leaves[start];
        uint256 middle = start + largestPowerBelow(end - start);
        return sha256(
            abi.encodePacked(bytes1(0x01), root(leaves, start, middle), root(leaves, middle, end))
        );
    }

    /// @dev PATH(index, D[start:end]), where `index` counts from the first leaf of all.
    function path(bytes32[] memory leaves, uint256 index, uint256 start, uint256 end)
        internal
        pure
        returns (bytes32[] memory)
    {
        if (end - start == 1) return new bytes32[](0);
        uint256 middle = start + largestPowerBelow(end - start);
        return index < middle
            ? append(path(leaves, index, start, middle), root(leaves, middle, end))
            : append(path(leaves, index, middle, end), root(leaves, start, middle));
    }

    /// @dev The first `size` leaves of an endless log that `seed` names.
    function leavesOf(uint256 size, bytes32 seed) internal pure returns (bytes32[] memory leaves) {
        leaves = new bytes32[](size);
        for (uint256 i = 0; i < size; ++i) {
            leaves[i] = sha256(abi.encodePacked(bytes1(0x00), seed, i));
        }
    }

    function largestPowerBelow(uint256 count) private pure returns (uint256 power) {
        power = 1;
        while (power * 2 < count) power *= 2;
    }

    function append(bytes32[] memory hashes, bytes32 last)
        private
        pure
        returns (bytes32[] memory longer)
    {
        longer = new bytes32[](hashes.length + 1);
        for (uint256 i = 0; i < hashes.length; ++i) {
            longer[i] = hashes[i];
        }
        longer[hashes.length] = last;
    }
}
