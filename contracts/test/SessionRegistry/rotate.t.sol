// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {
    Consent,
    Grant,
    ISessionRegistry,
    Limits,
    Registration,
    Session,
    SessionRef
} from "../../src/interfaces/ISessionRegistry.sol";
import {SessionTest} from "./SessionTest.sol";

contract RotateTest is SessionTest {
    uint256 private constant NEXT_KEY = 0x5E5511;

    SessionRef private from;

    function setUp() public override {
        super.setUp();
        from = refTo(registerTypical());
        useKey(NEXT_KEY);
        vm.warp(NOW + 1 days);
    }

    function rotate(Registration memory to) private {
        vm.prank(operator);
        registry.rotate(from, to);
    }

    /// @dev For the next key, with the owner's consent.
    function next() private view returns (Registration memory) {
        return next(typicalGrant());
    }

    function next(Grant memory grant) private view returns (Registration memory) {
        return registration(grant, Consent.Eip712, consentTo(grant));
    }

    function expectRefused(Registration memory to, bytes memory revertData) private {
        bytes memory before = abi.encode(registry.session(id), registry.session(from.tokenId));
        vm.prank(operator);
        vm.expectRevert(revertData);
        registry.rotate(from, to);
        vm.assertEq(abi.encode(registry.session(id), registry.session(from.tokenId)), before);
    }

    function expectInvalid(Registration memory to) private {
        expectRefused(
            to, abi.encodeWithSelector(ISessionRegistry.RotationInvalid.selector, from.tokenId, id)
        );
    }

    function test_EmitsAllFour() public {
        Registration memory to = next();
        bytes32 structHash = registry.grantHash(to.grant);
        vm.expectEmit(address(registry));
        emit ISessionRegistry.SessionRegistered(id, owner, structHash, Consent.Eip712, to.grant);
        vm.expectEmit(address(registry));
        emit ISessionRegistry.PKPMinted(id, publicKey);
        vm.expectEmit(address(registry));
        emit ISessionRegistry.SessionRevoked(from.tokenId, from.grantHash, operator);
        vm.expectEmit(address(registry));
        emit ISessionRegistry.SessionRotated(from.tokenId, id);
        rotate(to);
    }

    /// At every second exactly one of both is active.
    function testFuzz_NoGapAndNoOverlap(uint256 when, uint256 timestamp) public {
        when = bound(when, NOW, UNTIL - 1);
        vm.warp(when);
        rotate(next());
        timestamp = bound(timestamp, NOW, UNTIL - 1);
        vm.assertEq(registry.isActive(from.tokenId, timestamp), timestamp < when);
        vm.assertEq(registry.isActive(id, timestamp), timestamp >= when);
        vm.assertTrue(registry.session(from.tokenId).revoked);
        vm.assertFalse(registry.session(id).revoked);
    }

    /// The new grant may allow more: it is signed anew.
    function testFuzz_ToOtherLimitsAndTimes(Limits memory limits, uint64 until) public {
        Grant memory grant = typicalGrant();
        grant.limits = limits;
        grant.validUntil = uint64(bound(until, block.timestamp + 1, type(uint32).max));
        rotate(next(grant));
        vm.assertTrue(registry.verifyGrant(id, grant));
        vm.assertEq(abi.encode(registry.limitsOf(id, grant)), abi.encode(limits));
    }

    function test_AgainAndAgain() public {
        for (uint256 i = 1; i < 4; ++i) {
            useKey(i);
            Registration memory to = next();
            rotate(to);
            vm.assertTrue(registry.isActive(id, block.timestamp));
            from = refTo(to.grant);
        }
    }

    /// What an operator registered on its own word, it rotates so.
    function test_WithoutConsent_WhereThereWasNone() public {
        useKey(1);
        Grant memory grant = typicalGrant();
        register(grant);
        from = refTo(grant);
        useKey(2);
        rotate(registration(typicalGrant(), Consent.None, ""));
        vm.assertTrue(registry.session(id).consent == Consent.None);
    }

    // Nothing is raised, or lent to another, by a rotation

    function test_RevertIf_ConsentIsNotRenewed() public {
        expectInvalid(registration(typicalGrant(), Consent.None, ""));
    }

    function test_RevertIf_SignedForTheOldSession() public {
        useKey(SESSION_KEY);
        bytes memory signature = consentTo(typicalGrant());
        useKey(NEXT_KEY);
        Grant memory grant = typicalGrant();
        expectRefused(
            registration(grant, Consent.Eip712, signature),
            abi.encodeWithSelector(
                ISessionRegistry.OwnerSignatureInvalid.selector,
                owner,
                Consent.Eip712,
                registry.grantDigest(grant)
            )
        );
    }

    function test_RevertIf_AnotherOwner() public {
        Grant memory grant = typicalGrant();
        grant.owner = stranger;
        bytes memory signature = signed(STRANGER_KEY, registry.grantDigest(grant));
        expectInvalid(registration(grant, Consent.Eip712, signature));
    }

    function test_RevertIf_AnotherWorkspace() public {
        Grant memory grant = typicalGrant();
        grant.workspace = keccak256("another");
        expectInvalid(next(grant));
    }

    // Both are active

    function test_RevertIf_OldIsRevoked() public {
        vm.prank(owner);
        registry.revoke(only(from));
        vm.warp(NOW + 2 days);
        expectRefused(
            next(),
            abi.encodeWithSelector(
                ISessionRegistry.SessionNotActive.selector, from.tokenId, NOW + 2 days
            )
        );
    }

    function test_RevertIf_OldHasEnded() public {
        vm.warp(UNTIL);
        Grant memory grant = typicalGrant();
        grant.validUntil = UNTIL + 1;
        expectRefused(
            next(grant),
            abi.encodeWithSelector(ISessionRegistry.SessionNotActive.selector, from.tokenId, UNTIL)
        );
    }

    function test_RevertIf_OldsWorkspaceWasClosed() public {
        vm.prank(operator);
        registry.closeWorkspace(ACME);
        vm.prank(operator);
        registry.openWorkspace(ACME);
        expectRefused(
            next(),
            abi.encodeWithSelector(
                ISessionRegistry.SessionNotActive.selector, from.tokenId, NOW + 1 days
            )
        );
    }

    function test_RevertIf_NewStartsLater() public {
        Grant memory grant = typicalGrant();
        grant.validFrom = uint64(NOW + 1 days + 1);
        expectRefused(
            next(grant),
            abi.encodeWithSelector(ISessionRegistry.SessionNotActive.selector, id, NOW + 1 days)
        );
    }

    function test_NewStartsInThisSecond() public {
        Grant memory grant = typicalGrant();
        grant.validFrom = uint64(NOW + 1 days);
        rotate(next(grant));
        vm.assertTrue(registry.isActive(id, NOW + 1 days));
    }

    // What

    function test_RevertIf_OldIsUnknown() public {
        from.tokenId += 1;
        expectRefused(
            next(), abi.encodeWithSelector(ISessionRegistry.SessionUnknown.selector, from.tokenId)
        );
    }

    function test_RevertIf_OldHasAnotherGrantOrOwner() public {
        bytes memory refusal = abi.encodeWithSelector(
            ISessionRegistry.GrantMismatch.selector, from.tokenId, keccak256("another")
        );
        bytes32 known = from.grantHash;
        from.grantHash = keccak256("another");
        expectRefused(next(), refusal);
        from.grantHash = known;
        from.owner = stranger;
        expectRefused(
            next(),
            abi.encodeWithSelector(ISessionRegistry.GrantMismatch.selector, from.tokenId, known)
        );
    }

    function test_RevertIf_NewExists() public {
        registerTypical();
        expectRefused(next(), abi.encodeWithSelector(ISessionRegistry.SessionExists.selector, id));
    }

    function test_RevertIf_ToItself() public {
        useKey(SESSION_KEY);
        expectRefused(next(), abi.encodeWithSelector(ISessionRegistry.SessionExists.selector, id));
    }

    function testFuzz_RevertIf_NotOperator(address caller) public {
        vm.assume(caller != operator);
        Registration memory to = next();
        bytes memory refusal = abi.encodeWithSelector(
            IAccessControl.AccessControlUnauthorizedAccount.selector,
            caller,
            registry.OPERATOR_ROLE()
        );
        vm.prank(caller);
        vm.expectRevert(refusal);
        registry.rotate(from, to);
    }
}
