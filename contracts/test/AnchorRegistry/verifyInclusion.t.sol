// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MerkleTree} from "../MerkleTree.sol";
import {AnchorTest} from "./AnchorTest.sol";

contract VerifyInclusionTest is AnchorTest {
    uint256 private constant SIZE_MAX = 70;

    bytes32[] private leaves;

    function anchorTree(uint256 size, bytes32 seed) private {
        leaves = MerkleTree.leavesOf(size, seed);
        anchorAs(owner, uint64(size), MerkleTree.root(leaves, 0, size));
    }

    function pathOf(uint256 index) private view returns (bytes32[] memory) {
        return MerkleTree.path(leaves, index, 0, leaves.length);
    }

    function included(bytes32 leaf, uint256 index, bytes32[] memory path)
        private
        view
        returns (bool)
    {
        return registry.verifyInclusion(logId, leaf, uint64(index), path);
    }

    /// Every leaf of every tree of up to 33 leaves, each at its place and at no other.
    function test_EveryLeafOfEverySmallTree() public {
        for (uint256 size = 1; size <= 33; ++size) {
            anchorTree(size, "small");
            for (uint256 index = 0; index < size; ++index) {
                bytes32[] memory path = pathOf(index);
                vm.assertTrue(included(leaves[index], index, path));
                vm.assertFalse(included(leaves[index], index + 1, path));
            }
        }
    }

    function testFuzz_True(uint256 size, uint256 index, bytes32 seed) public {
        size = bound(size, 1, SIZE_MAX);
        index = bound(index, 0, size - 1);
        anchorTree(size, seed);
        vm.assertTrue(included(leaves[index], index, pathOf(index)));
    }

    function testFuzz_FalseForAnotherLeaf(uint256 size, uint256 index, bytes32 leaf) public {
        size = bound(size, 1, SIZE_MAX);
        index = bound(index, 0, size - 1);
        anchorTree(size, "");
        vm.assume(leaf != leaves[index]);
        vm.assertFalse(included(leaf, index, pathOf(index)));
    }

    function testFuzz_FalseAtAnotherPlace(uint256 size, uint256 index, uint64 other) public {
        size = bound(size, 1, SIZE_MAX);
        index = bound(index, 0, size - 1);
        vm.assume(other != index);
        anchorTree(size, "");
        vm.assertFalse(included(leaves[index], other, pathOf(index)));
    }

    function testFuzz_FalseWhenOneHashDiffers(
        uint256 size,
        uint256 index,
        uint256 place,
        uint256 bit
    ) public {
        size = bound(size, 2, SIZE_MAX);
        index = bound(index, 0, size - 1);
        anchorTree(size, "");
        bytes32[] memory path = pathOf(index);
        path[place % path.length] ^= bytes32(1 << (bit % 256));
        vm.assertFalse(included(leaves[index], index, path));
    }

    function testFuzz_FalseWhenThePathIsShorterOrLonger(uint256 size, uint256 index, uint256 length)
        public
    {
        size = bound(size, 1, SIZE_MAX);
        index = bound(index, 0, size - 1);
        anchorTree(size, "");
        bytes32[] memory whole = pathOf(index);
        bytes32[] memory part = new bytes32[](bound(length, 0, 300));
        vm.assume(part.length != whole.length);
        for (uint256 i = 0; i < part.length && i < whole.length; ++i) {
            part[i] = whole[i];
        }
        vm.assertFalse(included(leaves[index], index, part));
    }

    /// An inner node is no leaf, though a path leads from it to the root.
    function testFuzz_FalseForAnInnerNode(uint256 size, uint256 index) public {
        size = bound(size, 2, SIZE_MAX);
        index = bound(index, 0, size - 1);
        anchorTree(size, "");
        bytes32[] memory path = pathOf(index);
        vm.assume(index % 2 == 0 && index + 1 < size);
        bytes32 parent = sha256(abi.encodePacked(bytes1(0x01), leaves[index], leaves[index + 1]));
        bytes32[] memory above = new bytes32[](path.length - 1);
        for (uint256 i = 0; i < above.length; ++i) {
            above[i] = path[i + 1];
        }
        for (uint64 place = 0; place < size; ++place) {
            vm.assertFalse(included(parent, place, above));
        }
    }

    /// Only the newest anchor counts, under which older records have another proof.
    function testFuzz_UnderTheNewestAnchor(uint256 size, uint256 index, uint256 growth) public {
        size = bound(size, 1, SIZE_MAX);
        index = bound(index, 0, size - 1);
        anchorTree(size, "log");
        bytes32[] memory before = pathOf(index);
        anchorTree(size + bound(growth, 1, 10), "log");
        vm.assertTrue(included(leaves[index], index, pathOf(index)));
        bool same = keccak256(abi.encode(before)) == keccak256(abi.encode(pathOf(index)));
        vm.assertFalse(included(leaves[index], index, before) && !same);
    }

    /// The largest size there is: 64 hashes lead from its first leaf, and one from its last.
    function test_LargestSize() public {
        bytes32[] memory path = new bytes32[](64);
        bytes32 node = "leaf";
        for (uint256 i = 0; i < 64; ++i) {
            path[i] = keccak256(abi.encode(i));
            node = sha256(abi.encodePacked(bytes1(0x01), node, path[i]));
        }
        anchorAs(owner, type(uint64).max, node);
        vm.assertTrue(included("leaf", 0, path));
        vm.assertFalse(included("leaf", type(uint64).max - 1, path));
        vm.assertFalse(included("leaf", type(uint64).max, path));
        vm.assertFalse(included("leaf", 0, new bytes32[](65)));
    }

    function testFuzz_FalseBeforeTheFirstAnchor(bytes32 log, bytes32 leaf, uint64 index)
        public
        view
    {
        vm.assertFalse(registry.verifyInclusion(log, leaf, index, new bytes32[](0)));
        vm.assertFalse(registry.verifyInclusion(logId, leaf, index, new bytes32[](0)));
        vm.assertFalse(registry.verifyInclusion(logId, 0, 0, new bytes32[](0)));
    }
}
