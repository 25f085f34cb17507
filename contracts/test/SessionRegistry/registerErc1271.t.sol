// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {Consent, Grant, ISessionRegistry} from "../../src/interfaces/ISessionRegistry.sol";
import {
    AnsweringWallet,
    BurningWallet,
    FloodingWallet,
    ReenteringWallet,
    RevertingWallet,
    SmartWallet
} from "../Wallets.sol";
import {SessionTest} from "./SessionTest.sol";

contract RegisterErc1271Test is SessionTest {
    bytes32 private constant MAGIC = bytes32(IERC1271.isValidSignature.selector);

    function grantOf(address wallet) private view returns (Grant memory grant) {
        grant = typicalGrant();
        grant.owner = wallet;
    }

    function test_EmitsSessionRegistered() public {
        Grant memory grant = grantOf(address(new SmartWallet(owner)));
        bytes memory signature = consentTo(grant);
        vm.expectEmit(address(registry));
        emit ISessionRegistry.SessionRegistered(
            id, grant.owner, registry.grantHash(grant), Consent.Erc1271, grant
        );
        register(grant, Consent.Erc1271, signature);
        vm.assertTrue(registry.session(id).consent == Consent.Erc1271);
    }

    /// The contract takes whatever signature the wallet does, of any length.
    function testFuzz_WalletJudgesTheSignature(bytes memory signature) public {
        Grant memory grant = grantOf(address(new AnsweringWallet(abi.encode(MAGIC))));
        register(grant, Consent.Erc1271, signature);
        vm.assertTrue(registry.exists(id));
    }

    function test_RevertIf_WalletRefuses() public {
        Grant memory grant = grantOf(address(new SmartWallet(stranger)));
        expectSignatureRevert(grant, Consent.Erc1271, consentTo(grant));
    }

    /// What it once accepted stays registered: consent is of the moment.
    function test_StaysRegistered_WhenTheWalletChangesItsMind() public {
        SmartWallet wallet = new SmartWallet(owner);
        Grant memory grant = grantOf(address(wallet));
        register(grant, Consent.Erc1271, consentTo(grant));
        wallet.freeze();
        vm.assertTrue(registry.isActive(id, NOW));
        useKey(2);
        grant = grantOf(address(wallet));
        expectSignatureRevert(grant, Consent.Erc1271, consentTo(grant));
    }

    /// The wallet was asked about another digest.
    function test_RevertIf_SignedForAnotherChain() public {
        Grant memory grant = grantOf(address(new SmartWallet(owner)));
        vm.chainId(1);
        bytes memory signature = consentTo(grant);
        vm.chainId(31337);
        expectSignatureRevert(grant, Consent.Erc1271, signature);
    }

    /// Two wallets of one key: what it signed for one is not the other's consent.
    function test_RevertIf_SignedForAnotherWallet() public {
        Grant memory grant = grantOf(address(new SmartWallet(owner)));
        bytes memory signature = consentTo(grant);
        grant = grantOf(address(new SmartWallet(owner)));
        expectSignatureRevert(grant, Consent.Erc1271, signature);
    }

    function test_RevertIf_SignatureIsAPlainWallets() public {
        Grant memory grant = grantOf(address(new SmartWallet(owner)));
        expectSignatureRevert(grant, Consent.Eip712, consentTo(grant));
    }

    function test_RevertIf_OwnerIsNoContract() public {
        Grant memory grant = typicalGrant();
        expectSignatureRevert(grant, Consent.Erc1271, consentTo(grant));
        grant.owner = address(0);
        expectSignatureRevert(grant, Consent.Erc1271, consentTo(grant));
    }

    /// Precompiled contracts answer to anything, but never so.
    function testFuzz_RevertIf_OwnerIsAPrecompile(uint8 number, bytes memory signature) public {
        Grant memory grant = grantOf(address(uint160(bound(number, 1, 17))));
        expectSignatureRevert(grant, Consent.Erc1271, signature);
    }

    // Hostile wallets

    function expectRefused(address wallet) private {
        expectSignatureRevert(grantOf(wallet), Consent.Erc1271, hex"1234");
    }

    function testFuzz_RevertIf_AnswerIsNotTheMagicWord(bytes32 word) public {
        vm.assume(word != MAGIC);
        expectRefused(address(new AnsweringWallet(abi.encode(word))));
    }

    function testFuzz_RevertIf_MagicIsFollowedByAnythingElseInItsWord(uint224 rest) public {
        vm.assume(rest != 0);
        expectRefused(address(new AnsweringWallet(abi.encode(uint256(MAGIC) | rest))));
    }

    function testFuzz_RevertIf_AnswerIsShort(uint8 length) public {
        length = uint8(bound(length, 0, 31));
        bytes memory answer = new bytes(length);
        for (uint256 i = 0; i < length && i < 4; ++i) {
            answer[i] = MAGIC[i];
        }
        expectRefused(address(new AnsweringWallet(answer)));
    }

    /// The word that is read starts as what the contract left there, the token id: one byte short of
    /// the magic word must not be made whole by an id that ends with zero.
    function test_RevertIf_AnswerLacksAByteThatMemoryHas() public {
        for (uint256 key = 1; uint8(id) != 0; ++key) {
            useKey(key);
        }
        bytes memory answer = new bytes(31);
        for (uint256 i = 0; i < 4; ++i) {
            answer[i] = MAGIC[i];
        }
        expectRefused(address(new AnsweringWallet(answer)));
    }

    function test_RevertIf_ItRevertsWithTheMagicWord() public {
        expectRefused(address(new RevertingWallet()));
    }

    function test_RevertIf_ItReenters() public {
        bytes32 role = registry.OPERATOR_ROLE();
        ReenteringWallet wallet =
            new ReenteringWallet(registry, registration(typicalGrant(), Consent.None, ""));
        vm.prank(operator);
        registry.grantRole(role, address(wallet));
        useKey(2);
        expectRefused(address(wallet));
        useKey(SESSION_KEY);
        vm.assertFalse(registry.exists(id));
    }

    /// None costs much more than the gas that a wallet may use, or memory for what it answers.
    function test_BoundedGas() public {
        address[2] memory wallets = [address(new BurningWallet()), address(new FloodingWallet())];
        for (uint256 i = 0; i < wallets.length; ++i) {
            uint256 before = gasleft();
            expectRefused(wallets[i]);
            vm.assertLt(before - gasleft(), 700_000);
        }
    }
}
