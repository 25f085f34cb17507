// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Grant, ISessionRegistry, Session} from "../../src/interfaces/ISessionRegistry.sol";
import {SessionTest} from "./SessionTest.sol";

contract RevokeTest is SessionTest {
    function revokeAs(address caller, Grant memory grant) private {
        vm.prank(caller);
        registry.revoke(id, grant);
    }

    function test_EmitsSessionRevoked_ByOwner() public {
        Grant memory grant = registerTypical();
        vm.expectEmit(address(registry));
        emit ISessionRegistry.SessionRevoked(id, registry.grantHash(grant), owner);
        revokeAs(owner, grant);
    }

    function test_EmitsSessionRevoked_ByOperator() public {
        Grant memory grant = registerTypical();
        vm.expectEmit(address(registry));
        emit ISessionRegistry.SessionRevoked(id, registry.grantHash(grant), operator);
        revokeAs(operator, grant);
    }

    function test_OwnerNeedNotHaveSigned() public {
        Grant memory grant = typicalGrant();
        register(grant, "");
        revokeAs(owner, grant);
        vm.assertTrue(registry.session(id).revoked);
    }

    // When

    function testFuzz_EndsNow(uint256 when) public {
        Grant memory grant = registerTypical();
        when = bound(when, NOW, UNTIL - 1);
        vm.warp(when);
        revokeAs(owner, grant);

        Session memory session = registry.session(id);
        vm.assertTrue(session.revoked);
        vm.assertEq(session.endsAt, when);
        vm.assertEq(session.startsAt, NOW);
        vm.assertEq(session.grantCheck, bytes23(registry.grantHash(grant)));
        vm.assertFalse(registry.isActive(id, when));
        vm.assertEq(registry.isActive(id, when - 1), when > NOW);
    }

    function testFuzz_NeverMovesTheEnd_OnceOver(uint256 when) public {
        Grant memory grant = registerTypical();
        vm.warp(bound(when, UNTIL, type(uint64).max));
        revokeAs(owner, grant);
        vm.assertTrue(registry.session(id).revoked);
        vm.assertEq(registry.session(id).endsAt, UNTIL);
    }

    function testFuzz_BeforeItStarts_NeverActive(uint256 timestamp) public {
        Grant memory grant = typicalGrant();
        grant.validFrom = uint64(NOW + 1 days);
        register(grant, consentTo(grant));
        revokeAs(owner, grant);
        vm.assertEq(registry.session(id).endsAt, NOW);
        vm.assertFalse(registry.isActive(id, NOW));
        vm.assertFalse(registry.isActive(id, NOW + 1 days));
        vm.assertFalse(registry.isActive(id, timestamp));
    }

    // Who

    function testFuzz_RevertIf_Stranger(address caller) public {
        vm.assume(caller != owner && caller != operator);
        Grant memory grant = registerTypical();
        vm.expectRevert(
            abi.encodeWithSelector(ISessionRegistry.NotOwnerOrOperator.selector, caller, owner)
        );
        revokeAs(caller, grant);
    }

    function test_RevertIf_SessionKey() public {
        Grant memory grant = registerTypical();
        vm.expectRevert(
            abi.encodeWithSelector(
                ISessionRegistry.NotOwnerOrOperator.selector, grant.sessionKey, owner
            )
        );
        revokeAs(grant.sessionKey, grant);
    }

    function test_RevertIf_FormerOperator() public {
        Grant memory grant = registerTypical();
        bytes32 role = registry.OPERATOR_ROLE();
        vm.prank(operator);
        registry.renounceRole(role, operator);
        vm.expectRevert(
            abi.encodeWithSelector(ISessionRegistry.NotOwnerOrOperator.selector, operator, owner)
        );
        revokeAs(operator, grant);
    }

    // What

    function test_RevertIf_Unknown() public {
        Grant memory grant = typicalGrant();
        vm.expectRevert(abi.encodeWithSelector(ISessionRegistry.SessionUnknown.selector, id));
        revokeAs(operator, grant);
    }

    function test_RevertIf_Revoked() public {
        Grant memory grant = registerTypical();
        revokeAs(owner, grant);
        vm.expectRevert(abi.encodeWithSelector(ISessionRegistry.SessionAlreadyRevoked.selector, id));
        revokeAs(operator, grant);
    }

    /// A stranger must not become the owner by presenting a grant that names the stranger.
    function test_RevertIf_GrantNamesAnotherOwner() public {
        Grant memory grant = registerTypical();
        grant.owner = stranger;
        bytes32 structHash = registry.grantHash(grant);
        vm.expectRevert(
            abi.encodeWithSelector(ISessionRegistry.GrantMismatch.selector, id, structHash)
        );
        revokeAs(stranger, grant);
    }

    function testFuzz_RevertIf_AnotherGrant(bytes32 salt) public {
        Grant memory other = registerTypical();
        vm.assume(salt != other.salt);
        other.salt = salt;
        bytes32 structHash = registry.grantHash(other);
        vm.expectRevert(
            abi.encodeWithSelector(ISessionRegistry.GrantMismatch.selector, id, structHash)
        );
        revokeAs(operator, other);
    }
}
