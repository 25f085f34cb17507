// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AnchorRegistry} from "../../src/AnchorRegistry.sol";
import {BaseTest} from "../BaseTest.sol";

/// @notice A registry in which `owner` has opened one log.
abstract contract AnchorTest is BaseTest {
    bytes32 internal constant SALT = keccak256("log");

    AnchorRegistry internal registry;
    bytes32 internal logId;

    function setUp() public virtual override {
        super.setUp();
        registry = new AnchorRegistry();
        vm.prank(owner);
        logId = registry.openLog(SALT);
    }

    function anchorAs(address caller, uint64 size, bytes32 root) internal {
        vm.prank(caller);
        registry.anchor(logId, size, root);
    }

    function assertLatest(bytes32 log, uint64 size, bytes32 root, uint256 anchoredAt)
        internal
        view
    {
        (uint64 latestSize, bytes32 latestRoot, uint32 latestAt) = registry.latest(log);
        vm.assertEq(latestSize, size);
        vm.assertEq(latestRoot, root);
        vm.assertEq(latestAt, anchoredAt);
    }
}
