// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SessionRegistry} from "../../src/SessionRegistry.sol";
import {Consent, Grant, ISessionRegistry, Limits} from "../../src/interfaces/ISessionRegistry.sol";
import {SmartWallet} from "../Wallets.sol";
import {PasskeyTest} from "./PasskeyTest.sol";
import {SessionTest} from "./SessionTest.sol";

contract LowerLimitsBySignatureTest is SessionTest {
    uint64 private constant DEADLINE = uint64(NOW + 1 hours);

    function less(Grant memory grant) private pure returns (Limits memory limits) {
        limits = abi.decode(abi.encode(grant.limits), (Limits));
        limits.perDayMicroUsd -= 1;
    }

    function signatureOver(Limits memory limits) private view returns (bytes memory) {
        return signed(OWNER_KEY, registry.loweringDigest(id, limits, DEADLINE));
    }

    function relay(Grant memory grant, Limits memory limits, bytes memory signature) private {
        registry.lowerLimitsBySignature(id, grant, limits, DEADLINE, Consent.Eip712, signature);
    }

    function expectInvalid(Grant memory grant, Limits memory limits, bytes memory signature)
        private
    {
        vm.expectRevert(
            abi.encodeWithSelector(
                ISessionRegistry.OwnerSignatureInvalid.selector,
                grant.owner,
                Consent.Eip712,
                registry.loweringDigest(id, limits, DEADLINE)
            )
        );
        relay(grant, limits, signature);
    }

    function testFuzz_EmitsLimitsLowered_WhoeverRelays(address relayer) public {
        Grant memory grant = registerTypical();
        Limits memory limits = less(grant);
        bytes memory signature = signatureOver(limits);
        vm.expectEmit(address(registry));
        emit ISessionRegistry.LimitsLowered(id, registry.grantHash(grant), owner, limits);
        vm.prank(relayer);
        relay(grant, limits, signature);
        vm.assertEq(abi.encode(registry.limitsOf(id, grant)), abi.encode(limits));
    }

    function test_InTheLastSecond() public {
        Grant memory grant = registerTypical();
        bytes memory signature = signatureOver(less(grant));
        vm.warp(DEADLINE);
        relay(grant, less(grant), signature);
        vm.assertEq(abi.encode(registry.limitsOf(id, grant)), abi.encode(less(grant)));
    }

    function test_RevertIf_Expired() public {
        Grant memory grant = registerTypical();
        bytes memory signature = signatureOver(less(grant));
        vm.warp(DEADLINE + 1);
        vm.expectRevert(
            abi.encodeWithSelector(
                ISessionRegistry.DeadlineExpired.selector, DEADLINE, DEADLINE + 1
            )
        );
        relay(grant, less(grant), signature);
    }

    function test_RevertIf_UsedTwice() public {
        Grant memory grant = registerTypical();
        bytes memory signature = signatureOver(less(grant));
        relay(grant, less(grant), signature);
        vm.expectRevert(
            abi.encodeWithSelector(
                ISessionRegistry.LimitsNotLower.selector, id, less(grant), less(grant)
            )
        );
        relay(grant, less(grant), signature);
    }

    /// An older signature does not bring higher limits back.
    function test_RevertIf_LowerOnesCameBetween() public {
        Grant memory grant = registerTypical();
        bytes memory signature = signatureOver(less(grant));
        Limits memory lowest = Limits(1, 1, 1, 1, 1);
        relay(grant, lowest, signatureOver(lowest));
        vm.expectRevert(
            abi.encodeWithSelector(
                ISessionRegistry.LimitsNotLower.selector, id, lowest, less(grant)
            )
        );
        relay(grant, less(grant), signature);
    }

    function testFuzz_RevertIf_OtherLimitsWereSigned(Limits memory limits) public {
        Grant memory grant = registerTypical();
        vm.assume(keccak256(abi.encode(limits)) != keccak256(abi.encode(less(grant))));
        expectInvalid(grant, less(grant), signatureOver(limits));
    }

    function test_RevertIf_SignedForAnotherSession() public {
        Grant memory grant = registerTypical();
        bytes memory signature = signatureOver(less(grant));
        useKey(2);
        grant = registerTypical();
        expectInvalid(grant, less(grant), signature);
    }

    function test_RevertIf_SignedForAnotherChain() public {
        Grant memory grant = registerTypical();
        vm.chainId(1);
        bytes memory signature = signatureOver(less(grant));
        vm.chainId(31337);
        expectInvalid(grant, less(grant), signature);
    }

    function test_RevertIf_SignedForAnotherRegistry() public {
        Grant memory grant = typicalGrant();
        bytes memory signature = signatureOver(less(grant));
        registry = new SessionRegistry(operator, address(anchorRegistry));
        registerTypical();
        expectInvalid(grant, less(grant), signature);
    }

    function test_RevertIf_HighS() public {
        Grant memory grant = registerTypical();
        bytes32 digest = registry.loweringDigest(id, less(grant), DEADLINE);
        expectInvalid(grant, less(grant), signedHigh(OWNER_KEY, digest));
    }

    function test_RevertIf_SignedByStranger() public {
        Grant memory grant = registerTypical();
        bytes32 digest = registry.loweringDigest(id, less(grant), DEADLINE);
        expectInvalid(grant, less(grant), signed(STRANGER_KEY, digest));
    }

    /// Naming the signer as the owner of another's session does not help.
    function test_RevertIf_SignerNamesItselfAsOwner() public {
        Grant memory grant = registerTypical();
        grant.owner = stranger;
        bytes32 digest = registry.loweringDigest(id, less(grant), DEADLINE);
        bytes32 structHash = registry.grantHash(grant);
        vm.expectRevert(
            abi.encodeWithSelector(ISessionRegistry.GrantMismatch.selector, id, structHash)
        );
        relay(grant, less(grant), signed(STRANGER_KEY, digest));
    }

    /// A signature is of its kind: an operator's word is no owner's.
    function test_RevertIf_KindIsNone() public {
        Grant memory grant = registerTypical();
        vm.expectRevert(
            abi.encodeWithSelector(
                ISessionRegistry.OwnerSignatureInvalid.selector,
                owner,
                Consent.None,
                registry.loweringDigest(id, less(grant), DEADLINE)
            )
        );
        registry.lowerLimitsBySignature(id, grant, less(grant), DEADLINE, Consent.None, "");
    }

    function test_BySmartWallet() public {
        Grant memory grant = typicalGrant();
        grant.owner = address(new SmartWallet(owner));
        register(grant);
        Limits memory limits = less(grant);
        registry.lowerLimitsBySignature(
            id, grant, limits, DEADLINE, Consent.Erc1271, signatureOver(limits)
        );
        vm.assertEq(abi.encode(registry.limitsOf(id, grant)), abi.encode(limits));
    }
}

contract LowerLimitsByPasskeyTest is PasskeyTest {
    function test_ByPasskey() public {
        Grant memory grant = typicalGrant();
        register(grant);
        Limits memory none = Limits(0, 0, 0, 0, 0);
        bytes memory signature = asserted(registry.loweringDigest(id, none, UNTIL));
        vm.expectEmit(address(registry));
        emit ISessionRegistry.LimitsLowered(id, registry.grantHash(grant), owner, none);
        registry.lowerLimitsBySignature(id, grant, none, UNTIL, Consent.Passkey, signature);
    }
}
