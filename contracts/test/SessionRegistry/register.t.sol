// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {SessionRegistry} from "../../src/SessionRegistry.sol";
import {
    Consent,
    Grant,
    ISessionRegistry,
    Limits,
    Registration,
    Session
} from "../../src/interfaces/ISessionRegistry.sol";
import {Vm} from "../Vm.sol";
import {SessionTest} from "./SessionTest.sol";

contract RegisterTest is SessionTest {
    function test_EmitsSessionRegistered_WithConsent() public {
        Grant memory grant = typicalGrant();
        bytes memory signature = consentTo(grant);
        vm.expectEmit(address(registry));
        emit ISessionRegistry.SessionRegistered(
            id, owner, registry.grantHash(grant), Consent.Eip712, grant
        );
        register(grant, Consent.Eip712, signature);
    }

    function test_EmitsSessionRegistered_WithoutConsent() public {
        Grant memory grant = typicalGrant();
        grant.owner = address(0);
        vm.expectEmit(address(registry));
        emit ISessionRegistry.SessionRegistered(
            id, address(0), registry.grantHash(grant), Consent.None, grant
        );
        register(grant);
    }

    function test_EmitsPKPMinted() public {
        Grant memory grant = typicalGrant();
        vm.expectEmit(address(registry));
        emit ISessionRegistry.PKPMinted(id, publicKey);
        register(grant);
    }

    function test_WritesOneSlot_OnceTheWorkspaceIsOpen() public {
        vm.prank(operator);
        registry.openWorkspace(ACME);
        Grant memory grant = typicalGrant();
        vm.record();
        register(grant);
        vm.assertEq(slotsWritten(), 1);
    }

    function slotsWritten() private returns (uint256 count) {
        (, bytes32[] memory writes) = vm.accesses(address(registry));
        for (uint256 i = 0; i < writes.length; ++i) {
            bool before;
            for (uint256 j = 0; j < i; ++j) {
                if (writes[j] == writes[i]) before = true;
            }
            if (!before) ++count;
        }
    }

    function test_WritesTwoMoreSlots_ForThePublicKey() public {
        vm.prank(operator);
        registry.openWorkspace(ACME);
        Registration memory item = registration(typicalGrant(), Consent.None, "");
        item.storePublicKey = true;
        vm.record();
        vm.prank(operator);
        registry.register(only(item));
        vm.assertEq(slotsWritten(), 3);
    }

    function test_OpensTheWorkspace() public {
        vm.expectEmit(address(registry));
        emit ISessionRegistry.WorkspaceOpened(ACME, 1, operator);
        registerTypical();
    }

    function testFuzz_StoresTheSession(Grant memory grant, uint64 from, uint64 until) public {
        grant.owner = owner;
        grant.sessionKey = address(uint160(id));
        grant.validUntil = uint64(bound(until, NOW + 1, type(uint32).max));
        grant.validFrom = uint64(bound(from, 0, grant.validUntil - 1));
        register(grant, Consent.Eip712, consentTo(grant));

        Session memory session = registry.session(id);
        vm.assertEq(
            session.grantCheck, bytes19(keccak256(abi.encode(owner, registry.grantHash(grant))))
        );
        vm.assertEq(session.epoch, 1);
        vm.assertEq(session.startsAt, grant.validFrom < NOW ? NOW : grant.validFrom);
        vm.assertEq(session.endsAt, grant.validUntil);
        vm.assertTrue(session.consent == Consent.Eip712);
        vm.assertFalse(session.revoked);
    }

    function test_AnyOperator() public {
        bytes32 role = registry.OPERATOR_ROLE();
        vm.prank(operator);
        registry.grantRole(role, stranger);
        Registration memory item = registration(typicalGrant(), Consent.None, "");
        vm.prank(stranger);
        registry.register(only(item));
        vm.assertTrue(registry.exists(id));
    }

    // Many

    function many(uint256 count) private returns (Registration[] memory items) {
        items = new Registration[](count);
        for (uint256 i = 0; i < count; ++i) {
            useKey(i + 1);
            Grant memory grant = typicalGrant();
            items[i] = i % 2 == 0
                ? registration(grant, Consent.Eip712, consentTo(grant))
                : registration(grant, Consent.None, "");
        }
    }

    function test_Fifty_EachWithItsOwnConsent() public {
        Registration[] memory items = many(50);
        vm.prank(operator);
        registry.register(items);
        for (uint256 i = 0; i < items.length; ++i) {
            useKey(i + 1);
            vm.assertTrue(registry.verifyGrant(id, items[i].grant));
            vm.assertTrue(registry.session(id).consent == items[i].consent);
            vm.assertEq(registry.session(id).epoch, 1);
        }
    }

    function test_None() public {
        vm.record();
        vm.prank(operator);
        registry.register(new Registration[](0));
        vm.assertEq(slotsWritten(), 0);
    }

    function testFuzz_NoneIsRegistered_WhenOneIsRefused(uint256 wrong) public {
        Registration[] memory items = many(4);
        wrong = bound(wrong, 0, 3);
        items[wrong].grant.validUntil = uint64(NOW);
        items[wrong].consent = Consent.None;
        items[wrong].ownerSignature = "";
        vm.prank(operator);
        vm.expectRevert(
            abi.encodeWithSelector(
                ISessionRegistry.ValidityInvalid.selector, uint64(NOW), uint64(NOW), NOW
            )
        );
        registry.register(items);
        for (uint256 i = 0; i < 4; ++i) {
            useKey(i + 1);
            vm.assertFalse(registry.exists(id));
        }
    }

    function test_RevertIf_OneTwice() public {
        Registration[] memory items = many(2);
        items[1] = items[0];
        useKey(1);
        vm.prank(operator);
        vm.expectRevert(abi.encodeWithSelector(ISessionRegistry.SessionExists.selector, id));
        registry.register(items);
    }

    // What is emitted is what was signed

    /// Whatever byte of a good call is changed: it is refused, or what is emitted was signed.
    function testFuzz_NothingElseIsEmittedThanWasSigned(uint256 position, uint8 flip) public {
        Grant memory grant = typicalGrant();
        bytes32 digest = registry.grantDigest(grant);
        Registration memory item = registration(grant, Consent.Eip712, consentTo(grant));
        bytes memory data = abi.encodeCall(registry.register, (only(item)));
        position = bound(position, 4, data.length - 1);
        data[position] = bytes1(uint8(data[position]) ^ flip);
        checkEmitted(data, digest);
    }

    /// As before, of a whole word, by values that make offsets and lengths point elsewhere.
    function testFuzz_NothingElseIsEmittedThanWasSigned_Word(uint256 position, uint256 word)
        public
    {
        Grant memory grant = typicalGrant();
        bytes32 digest = registry.grantDigest(grant);
        Registration memory item = registration(grant, Consent.Eip712, consentTo(grant));
        bytes memory data = abi.encodeCall(registry.register, (only(item)));
        uint256 place = 4 + 32 * (position % ((data.length - 4) / 32));
        word = word % 2 == 0 ? 32 * bound(word / 2, 0, 64) : word;
        assembly {
            mstore(add(add(data, 0x20), place), word)
        }
        checkEmitted(data, digest);
    }

    function checkEmitted(bytes memory data, bytes32 digest) private {
        vm.recordLogs();
        vm.prank(operator);
        (bool taken,) = address(registry).call(data);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        if (!taken) logs = new Vm.Log[](0);
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].topics[0] != ISessionRegistry.SessionRegistered.selector) continue;
            (Consent consent, Grant memory emitted) = abi.decode(logs[i].data, (Consent, Grant));
            vm.assertTrue(consent == Consent.Eip712);
            vm.assertEq(registry.grantDigest(emitted), digest);
            vm.assertEq(logs[i].topics[1], bytes32(id));
            vm.assertEq(logs[i].topics[2], bytes32(uint256(uint160(owner))));
            vm.assertEq(logs[i].topics[3], registry.grantHash(emitted));
        }
        vm.assertEq(registry.exists(id), logs.length != 0);
    }

    /// Without a change it is taken: the tests above can emit something.
    function test_NothingElseIsEmittedThanWasSigned_Unchanged() public {
        testFuzz_NothingElseIsEmittedThanWasSigned(0, 0);
        vm.assertTrue(registry.exists(id));
    }

    // Who may

    function testFuzz_RevertIf_NotOperator(address caller) public {
        vm.assume(caller != operator);
        Grant memory grant = typicalGrant();
        Registration memory item = registration(grant, Consent.Eip712, consentTo(grant));
        bytes memory refusal = abi.encodeWithSelector(
            IAccessControl.AccessControlUnauthorizedAccount.selector,
            caller,
            registry.OPERATOR_ROLE()
        );
        vm.prank(caller);
        vm.expectRevert(refusal);
        registry.register(only(item));
    }

    /// Whoever sees an operator's call on its way cannot take the session key's place first.
    function test_RevertIf_FrontRun() public {
        Grant memory grant = typicalGrant();
        Registration memory seen = registration(grant, Consent.Eip712, consentTo(grant));
        bytes memory refusal = abi.encodeWithSelector(
            IAccessControl.AccessControlUnauthorizedAccount.selector,
            stranger,
            registry.OPERATOR_ROLE()
        );
        vm.prank(stranger);
        vm.expectRevert(refusal);
        registry.register(only(seen));
        vm.prank(operator);
        registry.register(only(seen));
        vm.assertTrue(registry.exists(id));
    }

    // Identity

    function test_RevertIf_KeyOfAnotherAddress() public {
        Grant memory grant = typicalGrant();
        grant.sessionKey = stranger;
        expectRegisterRevert(
            grant,
            Consent.Eip712,
            consentTo(grant),
            abi.encodeWithSelector(
                ISessionRegistry.SessionKeyMismatch.selector, stranger, address(uint160(id))
            )
        );
    }

    function test_RevertIf_Registered() public {
        Grant memory grant = registerTypical();
        Registration memory item = registration(grant, Consent.Eip712, consentTo(grant));
        vm.prank(operator);
        vm.expectRevert(abi.encodeWithSelector(ISessionRegistry.SessionExists.selector, id));
        registry.register(only(item));
    }

    function test_RevertIf_RegisteredWithAnotherGrant() public {
        Grant memory grant = registerTypical();
        grant.salt = keccak256("another");
        Registration memory item = registration(grant, Consent.None, "");
        vm.prank(operator);
        vm.expectRevert(abi.encodeWithSelector(ISessionRegistry.SessionExists.selector, id));
        registry.register(only(item));
    }

    function test_RevertIf_Revoked() public {
        Grant memory grant = registerTypical();
        revokeAs(owner, grant);
        Registration memory item = registration(grant, Consent.Eip712, consentTo(grant));
        vm.prank(operator);
        vm.expectRevert(abi.encodeWithSelector(ISessionRegistry.SessionExists.selector, id));
        registry.register(only(item));
    }

    // Validity

    function expectValidityRevert(uint64 from, uint64 until) private {
        Grant memory grant = typicalGrant();
        grant.validFrom = from;
        grant.validUntil = until;
        expectRegisterRevert(
            grant,
            Consent.Eip712,
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
        register(grant);
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
        register(grant);
        vm.assertEq(registry.session(id).endsAt, type(uint32).max);
    }

    function test_RevertIf_EndsAfter32Bits() public {
        expectValidityRevert(0, uint64(type(uint32).max) + 1);
    }

    function test_RevertIf_EndsAfter32BitsAndWouldWrapIntoRange() public {
        expectValidityRevert(0, (uint64(1) << 32) + UNTIL);
    }

    /// A parent that was never registered, and a scope that is none: auditors read them.
    function testFuzz_InterpretsNeitherParentNorScope(bytes32 parent, bytes32 scope) public {
        Grant memory grant = typicalGrant();
        (grant.parent, grant.scope) = (parent, scope);
        register(grant, Consent.Eip712, consentTo(grant));
        vm.assertTrue(registry.verifyGrant(id, grant));
    }

    // Consent of a plain wallet

    function test_RevertIf_SignedByStranger() public {
        Grant memory grant = typicalGrant();
        bytes memory signature = signed(STRANGER_KEY, registry.grantDigest(grant));
        expectSignatureRevert(grant, Consent.Eip712, signature);
    }

    function test_RevertIf_SignedWithHighS() public {
        Grant memory grant = typicalGrant();
        bytes memory signature = signedHigh(OWNER_KEY, registry.grantDigest(grant));
        expectSignatureRevert(grant, Consent.Eip712, signature);
    }

    function testFuzz_RevertIf_SignatureTruncatedOrExtended(uint256 length) public {
        length = bound(length, 0, 130);
        vm.assume(length != 65);
        Grant memory grant = typicalGrant();
        bytes memory whole = consentTo(grant);
        bytes memory part = new bytes(length);
        for (uint256 i = 0; i < length && i < 65; ++i) {
            part[i] = whole[i];
        }
        expectSignatureRevert(grant, Consent.Eip712, part);
    }

    function test_RevertIf_VIsZeroOrOne() public {
        Grant memory grant = typicalGrant();
        bytes memory signature = consentTo(grant);
        signature[64] = bytes1(uint8(signature[64]) - 27);
        expectSignatureRevert(grant, Consent.Eip712, signature);
    }

    function test_RevertIf_SignatureButNoOwner() public {
        Grant memory grant = typicalGrant();
        grant.owner = address(0);
        expectSignatureRevert(grant, Consent.Eip712, consentTo(grant));
        expectSignatureRevert(grant, Consent.Eip712, new bytes(65));
    }

    /// No signature is passed over: what is recorded as none came without one.
    function test_RevertIf_SignatureButConsentNone() public {
        Grant memory grant = typicalGrant();
        expectSignatureRevert(grant, Consent.None, consentTo(grant));
        expectSignatureRevert(grant, Consent.None, hex"00");
    }

    function testFuzz_RevertIf_SignedForAnotherChain(uint64 chain) public {
        chain = uint64(bound(chain, 1, type(uint64).max - 1));
        vm.assume(chain != 31337);
        Grant memory grant = typicalGrant();
        vm.chainId(chain);
        bytes memory signature = consentTo(grant);
        vm.chainId(31337);
        expectSignatureRevert(grant, Consent.Eip712, signature);
    }

    function test_RevertIf_SignedForAnotherRegistry() public {
        Grant memory grant = typicalGrant();
        bytes memory signature = consentTo(grant);
        registry = new SessionRegistry(operator, address(anchorRegistry));
        expectSignatureRevert(grant, Consent.Eip712, signature);
    }

    function test_RevertIf_SignedForAnotherSession() public {
        bytes memory signature = consentTo(typicalGrant());
        useKey(2);
        expectSignatureRevert(typicalGrant(), Consent.Eip712, signature);
    }

    function testFuzz_RevertIf_AnotherGrantWasSigned(Limits memory limits) public {
        Grant memory grant = typicalGrant();
        bytes memory signature = consentTo(grant);
        bytes32 signedHash = registry.grantHash(grant);
        grant.limits = limits;
        vm.assume(registry.grantHash(grant) != signedHash);
        expectSignatureRevert(grant, Consent.Eip712, signature);
    }

    function testFuzz_RevertIf_AnotherParentOrScopeWasSigned(bytes32 parent, bytes32 scope) public {
        Grant memory grant = typicalGrant();
        bytes memory signature = consentTo(grant);
        (grant.parent, grant.scope) = (parent, scope);
        expectSignatureRevert(grant, Consent.Eip712, signature);
    }

    /// An owner who revoked has not consented to anything.
    function test_RevertIf_SomethingElseWasSigned() public {
        Grant memory grant = typicalGrant();
        bytes32 revocation = registry.revocationDigest(only(id), grant.validUntil);
        bytes32 lowering = registry.loweringDigest(id, grant.limits, grant.validUntil);
        expectSignatureRevert(grant, Consent.Eip712, signed(OWNER_KEY, revocation));
        expectSignatureRevert(grant, Consent.Eip712, signed(OWNER_KEY, lowering));
    }
}
