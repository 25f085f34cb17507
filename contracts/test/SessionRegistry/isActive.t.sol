// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Grant} from "../../src/interfaces/ISessionRegistry.sol";
import {SessionTest} from "./SessionTest.sol";

contract IsActiveTest is SessionTest {
    function testFuzz_WithinHalfOpenRange(uint64 from, uint64 until, uint256 timestamp) public {
        Grant memory grant = typicalGrant();
        grant.validUntil = uint64(bound(until, NOW + 1, type(uint32).max));
        grant.validFrom = uint64(bound(from, NOW, grant.validUntil - 1));
        register(grant);

        vm.assertEq(
            registry.isActive(id, timestamp),
            grant.validFrom <= timestamp && timestamp < grant.validUntil
        );
        vm.assertFalse(registry.isActive(id, grant.validFrom - 1));
        vm.assertTrue(registry.isActive(id, grant.validFrom));
        vm.assertTrue(registry.isActive(id, grant.validUntil - 1));
        vm.assertFalse(registry.isActive(id, grant.validUntil));
    }

    function test_NotBeforeRegistration() public {
        Grant memory grant = typicalGrant();
        grant.validFrom = 0;
        register(grant);
        vm.assertFalse(registry.isActive(id, NOW - 1));
        vm.assertTrue(registry.isActive(id, NOW));
    }

    function testFuzz_FalseIfUnknown(uint256 unknown, uint256 timestamp) public view {
        vm.assertFalse(registry.isActive(unknown, timestamp));
    }

    function testFuzz_NotFromTheSecondInWhichItsWorkspaceIsClosed(uint256 when, uint256 timestamp)
        public
    {
        Grant memory grant = registerTypical();
        when = bound(when, NOW, UNTIL - 1);
        vm.warp(when);
        vm.prank(operator);
        registry.closeWorkspace(grant.workspace);
        vm.assertEq(registry.isActive(id, timestamp), NOW <= timestamp && timestamp < when);
        vm.assertFalse(registry.isActive(id, when));
    }
}
