// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {
    Grant,
    ISessionRegistry,
    Session,
    SessionRef
} from "../../src/interfaces/ISessionRegistry.sol";
import {SessionTest} from "./SessionTest.sol";

contract RevokeTest is SessionTest {
    function test_EmitsSessionRevoked_ByOwner() public {
        Grant memory grant = registerTypical();
        SessionRef memory ref = refTo(grant);
        vm.expectEmit(address(registry));
        emit ISessionRegistry.SessionRevoked(id, ref.grantHash, owner);
        vm.prank(owner);
        registry.revoke(only(ref));
    }

    function test_EmitsSessionRevoked_ByOperator() public {
        Grant memory grant = registerTypical();
        SessionRef memory ref = refTo(grant);
        vm.expectEmit(address(registry));
        emit ISessionRegistry.SessionRevoked(id, ref.grantHash, operator);
        vm.prank(operator);
        registry.revoke(only(ref));
    }

    function test_OwnerNeedNotHaveSigned() public {
        Grant memory grant = typicalGrant();
        register(grant);
        revokeAs(owner, grant);
        vm.assertTrue(registry.session(id).revoked);
    }

    // When

    function testFuzz_EndsNow(uint256 when) public {
        Grant memory grant = registerTypical();
        Session memory before = registry.session(id);
        when = bound(when, NOW, UNTIL - 1);
        vm.warp(when);
        revokeAs(owner, grant);

        before.revoked = true;
        before.endsAt = uint32(when);
        vm.assertEq(abi.encode(registry.session(id)), abi.encode(before));
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
        register(grant);
        revokeAs(owner, grant);
        vm.assertEq(registry.session(id).endsAt, NOW);
        vm.assertFalse(registry.isActive(id, NOW));
        vm.assertFalse(registry.isActive(id, NOW + 1 days));
        vm.assertFalse(registry.isActive(id, timestamp));
    }

    // Many

    function three() private returns (SessionRef[] memory refs) {
        refs = new SessionRef[](3);
        for (uint256 i = 0; i < 3; ++i) {
            useKey(i + 1);
            refs[i] = refTo(registerTypical());
        }
    }

    function test_Many() public {
        SessionRef[] memory refs = three();
        for (uint256 i = 0; i < 3; ++i) {
            vm.expectEmit(address(registry));
            emit ISessionRegistry.SessionRevoked(refs[i].tokenId, refs[i].grantHash, owner);
        }
        vm.prank(owner);
        registry.revoke(refs);
        for (uint256 i = 0; i < 3; ++i) {
            vm.assertTrue(registry.session(refs[i].tokenId).revoked);
        }
    }

    /// An operator revokes sessions of any owners; an owner only all of its own.
    function test_Many_OfSeveralOwners() public {
        SessionRef[] memory refs = three();
        useKey(4);
        Grant memory grant = typicalGrant();
        grant.owner = stranger;
        register(grant);
        refs[1] = refTo(grant);
        vm.prank(owner);
        vm.expectRevert(
            abi.encodeWithSelector(ISessionRegistry.NotOwnerOrOperator.selector, owner, stranger)
        );
        registry.revoke(refs);
        vm.assertFalse(registry.session(refs[0].tokenId).revoked);
        vm.prank(operator);
        registry.revoke(refs);
        vm.assertTrue(registry.session(refs[1].tokenId).revoked);
    }

    /// Somebody who revokes one of many first does not save the others.
    function testFuzz_Many_PassesOverThoseRevokedBefore(uint256 first) public {
        SessionRef[] memory refs = three();
        first = bound(first, 0, 2);
        vm.prank(owner);
        registry.revoke(only(refs[first]));
        vm.warp(NOW + 1);
        vm.prank(operator);
        registry.revoke(refs);
        for (uint256 i = 0; i < 3; ++i) {
            Session memory session = registry.session(refs[i].tokenId);
            vm.assertTrue(session.revoked);
            vm.assertEq(session.endsAt, i == first ? NOW : NOW + 1);
        }
    }

    function test_Many_OneTwice() public {
        SessionRef[] memory refs = three();
        refs[2] = refs[0];
        vm.prank(owner);
        registry.revoke(refs);
        vm.assertTrue(registry.session(refs[0].tokenId).revoked);
        vm.assertTrue(registry.session(refs[1].tokenId).revoked);
    }

    // Who

    function testFuzz_RevertIf_NeitherOwnerNorOperator(address caller) public {
        vm.assume(caller != owner && caller != operator);
        Grant memory grant = registerTypical();
        SessionRef memory ref = refTo(grant);
        vm.prank(caller);
        vm.expectRevert(
            abi.encodeWithSelector(ISessionRegistry.NotOwnerOrOperator.selector, caller, owner)
        );
        registry.revoke(only(ref));
    }

    function test_RevertIf_SessionKey() public {
        testFuzz_RevertIf_NeitherOwnerNorOperator(address(uint160(id)));
    }

    function test_RevertIf_FormerOperator() public {
        SessionRef memory ref = refTo(registerTypical());
        bytes32 role = registry.OPERATOR_ROLE();
        vm.prank(operator);
        registry.renounceRole(role, operator);
        vm.prank(operator);
        vm.expectRevert(
            abi.encodeWithSelector(ISessionRegistry.NotOwnerOrOperator.selector, operator, owner)
        );
        registry.revoke(only(ref));
    }

    // What

    function test_RevertIf_Unknown() public {
        SessionRef memory ref = refTo(typicalGrant());
        vm.prank(operator);
        vm.expectRevert(abi.encodeWithSelector(ISessionRegistry.SessionUnknown.selector, id));
        registry.revoke(only(ref));
    }

    function test_RevertIf_Revoked() public {
        Grant memory grant = registerTypical();
        revokeAs(owner, grant);
        SessionRef memory ref = refTo(grant);
        vm.prank(operator);
        vm.expectRevert(abi.encodeWithSelector(ISessionRegistry.NothingToRevoke.selector, 1));
        registry.revoke(only(ref));
    }

    function test_RevertIf_None() public {
        vm.prank(operator);
        vm.expectRevert(abi.encodeWithSelector(ISessionRegistry.NothingToRevoke.selector, 0));
        registry.revoke(new SessionRef[](0));
    }

    /// A stranger must not become the owner by naming itself.
    function test_RevertIf_AnotherOwner() public {
        SessionRef memory ref = refTo(registerTypical());
        ref.owner = stranger;
        vm.prank(stranger);
        vm.expectRevert(
            abi.encodeWithSelector(ISessionRegistry.GrantMismatch.selector, id, ref.grantHash)
        );
        registry.revoke(only(ref));
    }

    function testFuzz_RevertIf_AnotherGrant(bytes32 other) public {
        SessionRef memory ref = refTo(registerTypical());
        vm.assume(other != ref.grantHash);
        ref.grantHash = other;
        vm.prank(operator);
        vm.expectRevert(abi.encodeWithSelector(ISessionRegistry.GrantMismatch.selector, id, other));
        registry.revoke(only(ref));
    }
}
