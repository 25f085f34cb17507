// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {SessionRegistry} from "../../src/SessionRegistry.sol";
import {
    Consent,
    Grant,
    ISessionRegistry,
    Limits,
    Session
} from "../../src/interfaces/ISessionRegistry.sol";
import {SessionTest} from "./SessionTest.sol";

contract RegisterTest is SessionTest {
    function test_EmitsSessionRegistered_WithConsent() public {
        Grant memory grant = typicalGrant();
        bytes memory signature = consentTo(grant);
        vm.expectEmit(address(registry));
        emit ISessionRegistry.SessionRegistered(
            id, owner, registry.grantHash(grant), Consent.Eip712, grant
        );
        vm.assertEq(register(grant, signature), id);
    }

    function test_EmitsSessionRegistered_WithoutConsent() public {
        Grant memory grant = typicalGrant();
        grant.owner = address(0);
        vm.expectEmit(address(registry));
        emit ISessionRegistry.SessionRegistered(
            id, address(0), registry.grantHash(grant), Consent.None, grant
        );
        vm.assertEq(register(grant, ""), id);
    }

    function test_EmitsPKPMinted() public {
        Grant memory grant = typicalGrant();
        vm.expectEmit(address(registry));
        emit ISessionRegistry.PKPMinted(id, publicKey);
        register(grant, "");
    }

    function test_WritesOneSlot() public {
        Grant memory grant = typicalGrant();
        vm.record();
        register(grant, "");
        (, bytes32[] memory writes) = vm.accesses(address(registry));
        vm.assertEq(writes.length, 1);
    }

    function test_WritesTwoMoreSlots_ForThePublicKey() public {
        Grant memory grant = typicalGrant();
        vm.record();
        vm.prank(operator);
        registry.register(grant, publicKey, "", true);
        (, bytes32[] memory writes) = vm.accesses(address(registry));
        vm.assertEq(writes.length, 3);
    }

    function testFuzz_StoresTheSession(Grant memory grant, uint64 from, uint64 until) public {
        grant.owner = owner;
        grant.sessionKey = address(uint160(id));
        grant.validUntil = uint64(bound(until, NOW + 1, type(uint32).max));
        grant.validFrom = uint64(bound(from, 0, grant.validUntil - 1));
        register(grant, consentTo(grant));

        Session memory session = registry.session(id);
        vm.assertEq(session.grantCheck, bytes23(registry.grantHash(grant)));
        vm.assertEq(session.startsAt, grant.validFrom < NOW ? NOW : grant.validFrom);
        vm.assertEq(session.endsAt, grant.validUntil);
        vm.assertFalse(session.revoked);
    }

    function test_AnyOperator() public {
        bytes32 role = registry.OPERATOR_ROLE();
        vm.prank(operator);
        registry.grantRole(role, stranger);
        Grant memory grant = typicalGrant();
        vm.prank(stranger);
        registry.register(grant, publicKey, "", false);
        vm.assertTrue(registry.exists(id));
    }

    // Who may

    function testFuzz_RevertIf_NotOperator(address caller) public {
        vm.assume(caller != operator);
        Grant memory grant = typicalGrant();
        bytes memory signature = consentTo(grant);
        bytes memory refusal = abi.encodeWithSelector(
            IAccessControl.AccessControlUnauthorizedAccount.selector,
            caller,
            registry.OPERATOR_ROLE()
        );
        vm.prank(caller);
        vm.expectRevert(refusal);
        registry.register(grant, publicKey, signature, false);
    }

    // Identity

    function test_RevertIf_KeyOfAnotherAddress() public {
        Grant memory grant = typicalGrant();
        grant.sessionKey = stranger;
        expectRegisterRevert(
            grant,
            consentTo(grant),
            abi.encodeWithSelector(
                ISessionRegistry.SessionKeyMismatch.selector, stranger, address(uint160(id))
            )
        );
    }

    function test_RevertIf_KeyWithoutPrefix() public {
        Grant memory grant = typicalGrant();
        bytes memory unprefixed = new bytes(64);
        for (uint256 i = 0; i < 64; ++i) {
            unprefixed[i] = publicKey[i + 1];
        }
        vm.prank(operator);
        vm.expectRevert(
            abi.encodeWithSelector(ISessionRegistry.PublicKeyInvalid.selector, unprefixed)
        );
        registry.register(grant, unprefixed, "", false);
    }

    function test_RevertIf_Registered() public {
        Grant memory grant = registerTypical();
        bytes memory signature = consentTo(grant);
        vm.prank(operator);
        vm.expectRevert(abi.encodeWithSelector(ISessionRegistry.SessionExists.selector, id));
        registry.register(grant, publicKey, signature, false);
    }

    function test_RevertIf_RegisteredWithAnotherGrant() public {
        Grant memory grant = registerTypical();
        grant.salt = keccak256("another");
        vm.prank(operator);
        vm.expectRevert(abi.encodeWithSelector(ISessionRegistry.SessionExists.selector, id));
        registry.register(grant, publicKey, "", false);
    }

    function test_RevertIf_Revoked() public {
        Grant memory grant = registerTypical();
        vm.prank(owner);
        registry.revoke(id, grant);
        vm.prank(operator);
        vm.expectRevert(abi.encodeWithSelector(ISessionRegistry.SessionExists.selector, id));
        registry.register(grant, publicKey, "", false);
    }

    // Validity

    function expectValidityRevert(uint64 from, uint64 until) private {
        Grant memory grant = typicalGrant();
        grant.validFrom = from;
        grant.validUntil = until;
        expectRegisterRevert(
            grant,
            consentTo(grant),
            abi.encodeWithSelector(ISessionRegistry.ValidityInvalid.selector, from, until, NOW)
        );
    }

    function test_RevertIf_EndsNow() public {
        expectValidityRevert(0, uint64(NOW));
    }

    function test_EndsInOneSecond() public {
        Grant memory grant = typicalGrant();
        (grant.validFrom, grant.validUntil) = (0, uint64(NOW + 1));
        register(grant, "");
        vm.assertTrue(registry.isActive(id, NOW));
        vm.assertFalse(registry.isActive(id, NOW + 1));
    }

    function test_RevertIf_Empty() public {
        expectValidityRevert(UNTIL, UNTIL);
    }

    function test_RevertIf_EndsBeforeItStarts() public {
        expectValidityRevert(UNTIL, UNTIL - 1);
    }

    function test_EndsWithTheLastSecondOf32Bits() public {
        Grant memory grant = typicalGrant();
        grant.validUntil = type(uint32).max;
        register(grant, "");
        vm.assertEq(registry.session(id).endsAt, type(uint32).max);
    }

    function test_RevertIf_EndsAfter32Bits() public {
        expectValidityRevert(0, uint64(type(uint32).max) + 1);
    }

    function test_RevertIf_EndsAfter32BitsAndWouldWrapIntoRange() public {
        expectValidityRevert(0, (uint64(1) << 32) + UNTIL);
    }

    /// A parent that was never registered, and conditions that are none: auditors read them.
    function test_InterpretsNeitherParentNorConditions() public {
        Grant memory grant = typicalGrant();
        grant.parent = keccak256("nobody's grant");
        grant.conditions = list("spend it all");
        register(grant, consentTo(grant));
        vm.assertTrue(registry.verifyGrant(id, grant));
        grant.conditions = list("spend nothing");
        vm.assertFalse(registry.verifyGrant(id, grant));
    }

    // Consent

    function expectSignatureRevert(Grant memory grant, bytes memory signature, address signer)
        private
    {
        expectRegisterRevert(
            grant,
            signature,
            abi.encodeWithSelector(
                ISessionRegistry.OwnerSignatureInvalid.selector,
                grant.owner,
                signer,
                registry.grantDigest(grant)
            )
        );
    }

    function test_RevertIf_SignedByStranger() public {
        Grant memory grant = typicalGrant();
        bytes memory signature = signed(STRANGER_KEY, registry.grantDigest(grant));
        expectSignatureRevert(grant, signature, stranger);
    }

    function test_RevertIf_SignedWithHighS() public {
        Grant memory grant = typicalGrant();
        bytes memory signature = signedHigh(OWNER_KEY, registry.grantDigest(grant));
        expectSignatureRevert(grant, signature, address(0));
    }

    function testFuzz_RevertIf_SignatureTruncatedOrExtended(uint256 length) public {
        length = bound(length, 1, 130);
        vm.assume(length != 65);
        Grant memory grant = typicalGrant();
        bytes memory whole = consentTo(grant);
        bytes memory part = new bytes(length);
        for (uint256 i = 0; i < length && i < 65; ++i) {
            part[i] = whole[i];
        }
        expectSignatureRevert(grant, part, address(0));
    }

    function test_RevertIf_VIsZeroOrOne() public {
        Grant memory grant = typicalGrant();
        bytes memory signature = consentTo(grant);
        signature[64] = bytes1(uint8(signature[64]) - 27);
        expectSignatureRevert(grant, signature, address(0));
    }

    function test_RevertIf_SignatureButNoOwner() public {
        Grant memory grant = typicalGrant();
        grant.owner = address(0);
        bytes memory signature = consentTo(grant);
        expectSignatureRevert(grant, signature, owner);
        expectSignatureRevert(grant, new bytes(65), address(0));
    }

    function test_RevertIf_SignedForAnotherChain() public {
        Grant memory grant = typicalGrant();
        vm.chainId(1);
        bytes32 signedDigest = registry.grantDigest(grant);
        vm.chainId(31337);
        address signer = recovered(OWNER_KEY, signedDigest, registry.grantDigest(grant));
        expectSignatureRevert(grant, signed(OWNER_KEY, signedDigest), signer);
    }

    function test_RevertIf_SignedForAnotherRegistry() public {
        Grant memory grant = typicalGrant();
        bytes32 signedDigest = registry.grantDigest(grant);
        registry = new SessionRegistry(operator, address(anchorRegistry));
        address signer = recovered(OWNER_KEY, signedDigest, registry.grantDigest(grant));
        expectSignatureRevert(grant, signed(OWNER_KEY, signedDigest), signer);
    }

    function testFuzz_RevertIf_AnotherGrantWasSigned(Limits memory limits) public {
        Grant memory grant = typicalGrant();
        bytes32 signedDigest = registry.grantDigest(grant);
        grant.limits = limits;
        bytes32 digest = registry.grantDigest(grant);
        vm.assume(digest != signedDigest);
        address signer = recovered(OWNER_KEY, signedDigest, digest);
        expectSignatureRevert(grant, signed(OWNER_KEY, signedDigest), signer);
    }

    function testFuzz_RevertIf_AnotherParentOrOtherConditionsWereSigned(
        bytes32 parent,
        string[] memory conditions
    ) public {
        Grant memory grant = typicalGrant();
        bytes32 signedDigest = registry.grantDigest(grant);
        (grant.parent, grant.conditions) = (parent, conditions);
        bytes32 digest = registry.grantDigest(grant);
        vm.assume(digest != signedDigest);
        address signer = recovered(OWNER_KEY, signedDigest, digest);
        expectSignatureRevert(grant, signed(OWNER_KEY, signedDigest), signer);
    }
}
