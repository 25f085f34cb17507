// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Grant, ISessionRegistry, Limits} from "../../src/interfaces/ISessionRegistry.sol";
import {SessionTest} from "./SessionTest.sol";

contract LimitsOfTest is SessionTest {
    function testFuzz_TheGrants_UntilTheyAreLowered(Limits memory limits) public {
        Grant memory grant = typicalGrant();
        grant.limits = limits;
        register(grant);
        vm.assertEq(abi.encode(registry.limitsOf(id, grant)), abi.encode(limits));
    }

    /// Zero is a limit like any other, not "not lowered".
    function test_LoweredToNothing() public {
        Grant memory grant = registerTypical();
        Limits memory nothing = Limits(0, 0, 0, 0, 0);
        vm.prank(owner);
        registry.lowerLimits(id, grant, nothing);
        vm.assertEq(abi.encode(registry.limitsOf(id, grant)), abi.encode(nothing));
    }

    function testFuzz_RevertIf_AnotherGrant(bytes32 salt) public {
        Grant memory grant = registerTypical();
        vm.assume(salt != grant.salt);
        grant.salt = salt;
        bytes32 structHash = registry.grantHash(grant);
        vm.expectRevert(
            abi.encodeWithSelector(ISessionRegistry.GrantMismatch.selector, id, structHash)
        );
        registry.limitsOf(id, grant);
    }

    function test_RevertIf_Unknown() public {
        Grant memory grant = typicalGrant();
        vm.expectRevert(abi.encodeWithSelector(ISessionRegistry.SessionUnknown.selector, id));
        registry.limitsOf(id, grant);
    }
}
