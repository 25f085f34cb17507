// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {BaseTest} from "../BaseTest.sol";
import {MerkleTree} from "../MerkleTree.sol";
import {AnchorHandler} from "./AnchorHandler.sol";

contract AnchorRegistryInvariants is BaseTest {
    AnchorHandler private handler;

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    function setUp() public override {
        handler = new AnchorHandler();
    }

    function excludeSelectors() external view returns (FuzzSelector[] memory excluded) {
        excluded = new FuzzSelector[](1);
        excluded[0] = FuzzSelector(address(handler), new bytes4[](1));
        excluded[0].selectors[0] = handler.setUp.selector;
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// Sizes only ever grew, to what the anchorer last anchored.
    function invariant_HoldsTheLargestAnchor() public view {
        for (uint256 i = 0; i < handler.logCount(); ++i) {
            bytes32 logId = handler.logs(i);
            (uint64 size, bytes32 root,) = handler.registry().latest(logId);
            vm.assertEq(size, handler.sizeOf(logId));
            vm.assertEq(root, handler.rootOf(logId));
        }
    }

    function invariant_AnchorersNeverChange() public view {
        for (uint256 i = 0; i < handler.logCount(); ++i) {
            bytes32 logId = handler.logs(i);
            vm.assertEq(handler.registry().anchorerOf(logId), handler.anchorerOf(logId));
        }
    }

    /// Every record that was anchored once can be proven under the newest anchor, at its place only.
    function invariant_RecordsStayProvable() public view {
        for (uint256 i = 0; i < handler.logCount(); ++i) {
            bytes32 logId = handler.logs(i);
            uint64 size = handler.sizeOf(logId);
            if (size == 0) continue;
            bytes32[] memory leaves = MerkleTree.leavesOf(size, logId);
            uint64 index = uint64(uint256(handler.rootOf(logId)) % size);
            bytes32[] memory path = MerkleTree.path(leaves, index, 0, size);
            vm.assertTrue(handler.registry().verifyInclusion(logId, leaves[index], index, path));
            vm.assertFalse(
                handler.registry().verifyInclusion(logId, leaves[index], index + 1, path)
            );
        }
    }

    /// Were the handler's calls empty, the invariants would prove nothing.
    function test_HandlerReachesTheRegistry() public {
        handler.openLog(1, "salt");
        handler.anchor(0, 5);
        handler.anchor(0, 3);
        handler.anchorWrongly(0, 1, 5);
        handler.anchorWrongly(0, 2, 60);
        handler.openAgain(1, "salt");
        vm.assertEq(handler.logCount(), 1);
        vm.assertEq(handler.anchored(), 2);
        vm.assertEq(handler.refused(), 3);
        vm.assertEq(handler.sizeOf(handler.logs(0)), 10);
        invariant_HoldsTheLargestAnchor();
        invariant_AnchorersNeverChange();
        invariant_RecordsStayProvable();
    }
}
