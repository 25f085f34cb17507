// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SessionRegistry} from "../../src/SessionRegistry.sol";
import {
    Consent,
    Grant,
    ISessionRegistry,
    Session,
    SessionRef
} from "../../src/interfaces/ISessionRegistry.sol";
import {SmartWallet} from "../Wallets.sol";
import {PasskeyTest} from "./PasskeyTest.sol";
import {SessionTest} from "./SessionTest.sol";

contract RevokeBySignatureTest is SessionTest {
    uint64 private constant DEADLINE = uint64(NOW + 1 hours);

    /// @dev By the owner, over these sessions.
    function signatureOver(SessionRef[] memory refs) private view returns (bytes memory) {
        uint256[] memory ids = new uint256[](refs.length);
        for (uint256 i = 0; i < refs.length; ++i) {
            ids[i] = refs[i].tokenId;
        }
        return signed(OWNER_KEY, registry.revocationDigest(ids, DEADLINE));
    }

    function many(uint256 count) private returns (SessionRef[] memory refs) {
        refs = new SessionRef[](count);
        for (uint256 i = 0; i < count; ++i) {
            useKey(i + 1);
            refs[i] = refTo(registerTypical());
        }
    }

    function expectInvalid(SessionRef[] memory refs, bytes memory signature) private {
        uint256[] memory ids = new uint256[](refs.length);
        for (uint256 i = 0; i < refs.length; ++i) {
            ids[i] = refs[i].tokenId;
        }
        vm.expectRevert(
            abi.encodeWithSelector(
                ISessionRegistry.OwnerSignatureInvalid.selector,
                owner,
                Consent.Eip712,
                registry.revocationDigest(ids, DEADLINE)
            )
        );
        registry.revokeBySignature(refs, DEADLINE, Consent.Eip712, signature);
    }

    function testFuzz_EmitsSessionRevoked_WhoeverRelays(address relayer) public {
        SessionRef[] memory refs = many(1);
        bytes memory signature = signatureOver(refs);
        vm.expectEmit(address(registry));
        emit ISessionRegistry.SessionRevoked(refs[0].tokenId, refs[0].grantHash, owner);
        vm.prank(relayer);
        registry.revokeBySignature(refs, DEADLINE, Consent.Eip712, signature);
        Session memory session = registry.session(refs[0].tokenId);
        vm.assertTrue(session.revoked);
        vm.assertEq(session.endsAt, NOW);
    }

    function test_Many() public {
        SessionRef[] memory refs = many(3);
        registry.revokeBySignature(refs, DEADLINE, Consent.Eip712, signatureOver(refs));
        for (uint256 i = 0; i < 3; ++i) {
            vm.assertTrue(registry.session(refs[i].tokenId).revoked);
        }
    }

    function test_InTheLastSecond() public {
        SessionRef[] memory refs = many(1);
        bytes memory signature = signatureOver(refs);
        vm.warp(DEADLINE);
        registry.revokeBySignature(refs, DEADLINE, Consent.Eip712, signature);
        vm.assertTrue(registry.session(refs[0].tokenId).revoked);
    }

    function test_RevertIf_Expired() public {
        SessionRef[] memory refs = many(1);
        bytes memory signature = signatureOver(refs);
        vm.warp(DEADLINE + 1);
        vm.expectRevert(
            abi.encodeWithSelector(
                ISessionRegistry.DeadlineExpired.selector, DEADLINE, DEADLINE + 1
            )
        );
        registry.revokeBySignature(refs, DEADLINE, Consent.Eip712, signature);
    }

    function testFuzz_RevertIf_AnotherDeadlineWasSigned(uint64 deadline) public {
        deadline = uint64(bound(deadline, NOW, type(uint64).max));
        vm.assume(deadline != DEADLINE);
        SessionRef[] memory refs = many(1);
        bytes memory signature =
            signed(OWNER_KEY, registry.revocationDigest(only(refs[0].tokenId), deadline));
        expectInvalid(refs, signature);
    }

    /// Whoever sends it first: it is done, and the second learns that.
    function test_FrontRun_SameEffect() public {
        SessionRef[] memory refs = many(1);
        bytes memory signature = signatureOver(refs);
        vm.prank(stranger);
        registry.revokeBySignature(refs, DEADLINE, Consent.Eip712, signature);
        vm.assertTrue(registry.session(refs[0].tokenId).revoked);
        vm.expectRevert(abi.encodeWithSelector(ISessionRegistry.NothingToRevoke.selector, 1));
        registry.revokeBySignature(refs, DEADLINE, Consent.Eip712, signature);
    }

    /// A relayer cannot leave out one of those that were signed for, or add one.
    function test_RevertIf_OtherSessions() public {
        SessionRef[] memory refs = many(3);
        SessionRef[] memory two = new SessionRef[](2);
        (two[0], two[1]) = (refs[0], refs[1]);
        expectInvalid(two, signatureOver(refs));
        expectInvalid(refs, signatureOver(two));
        bytes memory signature = signatureOver(two);
        (two[0], two[1]) = (refs[1], refs[0]);
        expectInvalid(two, signature);
    }

    function test_RevertIf_OfAnotherOwnersSession() public {
        SessionRef[] memory refs = many(2);
        useKey(3);
        Grant memory grant = typicalGrant();
        grant.owner = stranger;
        register(grant);
        refs[1] = refTo(grant);
        bytes memory signature = signatureOver(refs);
        vm.expectRevert(
            abi.encodeWithSelector(ISessionRegistry.NotOwnerOrOperator.selector, owner, stranger)
        );
        registry.revokeBySignature(refs, DEADLINE, Consent.Eip712, signature);
    }

    /// Naming the signer as the owner of another's session does not help.
    function test_RevertIf_SignerNamesItselfAsOwner() public {
        SessionRef[] memory refs = many(1);
        refs[0].owner = stranger;
        bytes memory signature =
            signed(STRANGER_KEY, registry.revocationDigest(only(refs[0].tokenId), DEADLINE));
        vm.expectRevert(
            abi.encodeWithSelector(
                ISessionRegistry.GrantMismatch.selector, refs[0].tokenId, refs[0].grantHash
            )
        );
        registry.revokeBySignature(refs, DEADLINE, Consent.Eip712, signature);
    }

    function test_RevertIf_SignedByStranger() public {
        SessionRef[] memory refs = many(1);
        bytes32 digest = registry.revocationDigest(only(refs[0].tokenId), DEADLINE);
        expectInvalid(refs, signed(STRANGER_KEY, digest));
    }

    function test_RevertIf_HighS() public {
        SessionRef[] memory refs = many(1);
        bytes32 digest = registry.revocationDigest(only(refs[0].tokenId), DEADLINE);
        expectInvalid(refs, signedHigh(OWNER_KEY, digest));
    }

    function test_RevertIf_SignedForAnotherChain() public {
        SessionRef[] memory refs = many(1);
        vm.chainId(1);
        bytes memory signature = signatureOver(refs);
        vm.chainId(31337);
        expectInvalid(refs, signature);
    }

    function test_RevertIf_SignedForAnotherRegistry() public {
        SessionRef[] memory refs = many(1);
        bytes memory signature = signatureOver(refs);
        registry = new SessionRegistry(operator, address(anchorRegistry));
        expectInvalid(many(1), signature);
    }

    function test_RevertIf_SignedForAnotherSession() public {
        SessionRef[] memory refs = many(2);
        bytes memory signature = signatureOver(only(refs[0]));
        expectInvalid(only(refs[1]), signature);
    }

    /// Consent to a session is not its revocation.
    function test_RevertIf_TheGrantWasSigned() public {
        Grant memory grant = registerTypical();
        SessionRef[] memory refs = only(refTo(grant));
        expectInvalid(refs, consentTo(grant));
    }

    function test_RevertIf_None() public {
        vm.expectRevert(abi.encodeWithSelector(ISessionRegistry.NothingToRevoke.selector, 0));
        registry.revokeBySignature(new SessionRef[](0), DEADLINE, Consent.Eip712, "");
    }

    /// `None` stands for an operator's word, which nobody can relay.
    function test_RevertIf_KindIsNone() public {
        SessionRef[] memory refs = many(1);
        vm.expectRevert(
            abi.encodeWithSelector(
                ISessionRegistry.OwnerSignatureInvalid.selector,
                owner,
                Consent.None,
                registry.revocationDigest(only(refs[0].tokenId), DEADLINE)
            )
        );
        registry.revokeBySignature(refs, DEADLINE, Consent.None, "");
    }

    function test_RevertIf_Unknown() public {
        SessionRef[] memory refs = only(refTo(typicalGrant()));
        bytes memory signature = signatureOver(refs);
        vm.expectRevert(abi.encodeWithSelector(ISessionRegistry.SessionUnknown.selector, id));
        registry.revokeBySignature(refs, DEADLINE, Consent.Eip712, signature);
    }

    function test_BySmartWallet() public {
        Grant memory grant = typicalGrant();
        grant.owner = address(new SmartWallet(owner));
        register(grant);
        SessionRef[] memory refs = only(refTo(grant));
        registry.revokeBySignature(refs, DEADLINE, Consent.Erc1271, signatureOver(refs));
        vm.assertTrue(registry.session(id).revoked);
    }
}

contract RevokeByPasskeyTest is PasskeyTest {
    function test_ByPasskey() public {
        Grant memory grant = typicalGrant();
        register(grant, Consent.Passkey, asserted(registry.grantDigest(grant)));
        SessionRef[] memory refs = only(refTo(grant));
        bytes memory signature = asserted(registry.revocationDigest(only(id), UNTIL));
        vm.expectEmit(address(registry));
        emit ISessionRegistry.SessionRevoked(id, refs[0].grantHash, owner);
        registry.revokeBySignature(refs, UNTIL, Consent.Passkey, signature);
    }
}
