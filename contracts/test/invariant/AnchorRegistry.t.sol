// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {BaseTest} from "../BaseTest.sol";
import {AnchorHandler} from "./AnchorHandler.sol";

contract AnchorRegistryInvariants is BaseTest {
    AnchorHandler private handler;

    function setUp() public override {
        handler = new AnchorHandler();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// Sizes only ever grew, to what the anchorer last anchored, and no anchorer changed.
    function invariant_HoldsTheLargestAnchor() public view {
        for (uint256 i = 0; i < handler.logCount(); ++i) {
            bytes32 logId = handler.logs(i);
            (uint64 size, bytes32 root,) = handler.registry().latest(logId);
            vm.assertEq(size, handler.sizeOf(logId));
            vm.assertEq(root, handler.rootOf(logId));
            vm.assertEq(handler.registry().anchorerOf(logId), handler.anchorerOf(logId));
        }
    }

    /// Were the handler's calls empty, the invariant would prove nothing.
    function test_HandlerReachesTheRegistry() public {
        handler.openLog(1, "salt");
        handler.anchor(0, 5, "root");
        handler.anchorWrongly(0, 1, 5);
        handler.anchorWrongly(0, 2, 6);
        vm.assertEq(handler.logCount(), 1);
        vm.assertEq(handler.anchored(), 1);
        vm.assertEq(handler.refused(), 2);
        invariant_HoldsTheLargestAnchor();
    }
}
