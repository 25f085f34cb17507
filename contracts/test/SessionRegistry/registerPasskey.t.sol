// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SessionRegistry} from "../../src/SessionRegistry.sol";
import {Consent, Grant, ISessionRegistry} from "../../src/interfaces/ISessionRegistry.sol";
import {PasskeyTest} from "./PasskeyTest.sol";

contract RegisterPasskeyTest is PasskeyTest {
    /// @dev Where P-256 is verified natively (RIP-7212, EIP-7951).
    address private constant P256_PRECOMPILE = address(0x100);

    function refuse(Grant memory grant, bytes memory signature) private {
        expectSignatureRevert(grant, Consent.Passkey, signature);
    }

    function test_EmitsSessionRegistered() public {
        Grant memory grant = typicalGrant();
        bytes memory signature = asserted(registry.grantDigest(grant));
        vm.expectEmit(address(registry));
        emit ISessionRegistry.SessionRegistered(
            id, owner, registry.grantHash(grant), Consent.Passkey, grant
        );
        register(grant, Consent.Passkey, signature);
        vm.assertTrue(registry.session(id).consent == Consent.Passkey);
    }

    function test_WhereTheChainVerifiesP256() public {
        Grant memory grant = typicalGrant();
        bytes memory signature = asserted(registry.grantDigest(grant));
        vm.mockCall(P256_PRECOMPILE, "", abi.encode(true));
        uint256 before = gasleft();
        register(grant, Consent.Passkey, signature);
        vm.assertLt(before - gasleft(), 200_000);
        vm.assertTrue(registry.exists(id));
    }

    function test_RevertIf_TheChainVerifiesP256AndRefuses() public {
        Grant memory grant = typicalGrant();
        bytes memory signature = asserted(registry.grantDigest(grant));
        bytes memory known = hex"bb5a52f42f9c9261ed4361f59422a1e30036e7c32b270c8807a419feca605023";
        vm.mockCall(P256_PRECOMPILE, "", abi.encode(false));
        vm.mockCall(P256_PRECOMPILE, known, abi.encode(true));
        refuse(grant, signature);
    }

    function test_RevertIf_KeyIsNotTheOwners() public {
        Grant memory grant = typicalGrant();
        (uint256 keyX, uint256 keyY) = vm.publicKeyP256(7);
        (x, y) = (bytes32(keyX), bytes32(keyY));
        string memory json = clientData("webauthn.get", registry.grantDigest(grant));
        refuse(grant, asserted(7, json, UP_UV, false));
    }

    function test_RevertIf_SignedByAnotherKey() public {
        Grant memory grant = typicalGrant();
        string memory json = clientData("webauthn.get", registry.grantDigest(grant));
        refuse(grant, asserted(7, json, UP_UV, false));
    }

    function test_RevertIf_HighS() public {
        Grant memory grant = typicalGrant();
        string memory json = clientData("webauthn.get", registry.grantDigest(grant));
        refuse(grant, asserted(PASSKEY, json, UP_UV, true));
    }

    /// Bit 0 is "user present", bit 2 "user verified"; both are asked for.
    function testFuzz_RevertIf_UserWasNotVerified(uint8 flags) public {
        vm.assume(flags & 0x05 != 0x05);
        Grant memory grant = typicalGrant();
        string memory json = clientData("webauthn.get", registry.grantDigest(grant));
        refuse(grant, asserted(PASSKEY, json, bytes1(flags), false));
    }

    function test_RevertIf_ItIsARegistrationOfAPasskey() public {
        Grant memory grant = typicalGrant();
        string memory json = clientData("webauthn.new", registry.grantDigest(grant));
        refuse(grant, asserted(PASSKEY, json, UP_UV, false));
    }

    function testFuzz_RevertIf_AnotherChallenge(bytes32 challenge) public {
        Grant memory grant = typicalGrant();
        vm.assume(challenge != registry.grantDigest(grant));
        refuse(grant, asserted(challenge));
    }

    function test_RevertIf_SignedForAnotherChain() public {
        Grant memory grant = typicalGrant();
        vm.chainId(1);
        bytes memory signature = asserted(registry.grantDigest(grant));
        vm.chainId(31337);
        refuse(grant, signature);
    }

    function test_RevertIf_SignedForAnotherRegistry() public {
        Grant memory grant = typicalGrant();
        bytes memory signature = asserted(registry.grantDigest(grant));
        registry = new SessionRegistry(operator, address(anchorRegistry));
        refuse(grant, signature);
    }

    function test_RevertIf_SignedForAnotherSession() public {
        bytes memory signature = asserted(registry.grantDigest(typicalGrant()));
        useKey(2);
        refuse(typicalGrant(), signature);
    }

    /// The word of an authenticator about itself, with fewer bytes than it always has.
    function testFuzz_RevertIf_AuthenticatorDataIsShort(uint256 length) public {
        Grant memory grant = typicalGrant();
        string memory json = clientData("webauthn.get", registry.grantDigest(grant));
        refuse(grant, encoded(0, 0, new bytes(bound(length, 0, 36)), json));
    }

    function testFuzz_RevertIf_Truncated(uint256 length) public {
        Grant memory grant = typicalGrant();
        bytes memory whole = asserted(registry.grantDigest(grant));
        // The last word holds the end of the client data, and padding after it.
        length = bound(length, 0, whole.length - 33);
        assembly {
            mstore(whole, length)
        }
        refuse(grant, whole);
    }

    /// Offsets and lengths that point outside are refused, not followed.
    function testFuzz_RevertIf_AWordIsAnother(uint256 position, uint256 word) public {
        Grant memory grant = typicalGrant();
        bytes memory signature = asserted(registry.grantDigest(grant));
        bytes32 before = keccak256(signature);
        uint256 place = 32 + 32 * bound(position, 0, 9);
        assembly {
            mstore(add(signature, place), word)
        }
        vm.assume(keccak256(signature) != before);
        refuse(grant, signature);
    }

    function testFuzz_RevertIf_Garbage(bytes memory garbage) public {
        refuse(typicalGrant(), garbage);
        refuse(typicalGrant(), bytes.concat(x, y, garbage));
    }
}
