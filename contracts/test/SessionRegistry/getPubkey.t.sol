// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Consent, ISessionRegistry, Registration} from "../../src/interfaces/ISessionRegistry.sol";
import {SessionTest} from "./SessionTest.sol";

contract GetPubkeyTest is SessionTest {
    function testFuzz_Stored(uint256 privateKey) public {
        useKey(bound(privateKey, 1, ORDER - 1));
        Registration memory item = registration(typicalGrant(), Consent.None, "");
        item.storePublicKey = true;
        vm.prank(operator);
        registry.register(only(item));
        vm.assertEq(registry.getPubkey(id), publicKey);
    }

    function test_RevertIf_NotStored() public {
        registerTypical();
        vm.expectRevert(abi.encodeWithSelector(ISessionRegistry.PublicKeyNotStored.selector, id));
        registry.getPubkey(id);
    }

    function test_RevertIf_Unknown() public {
        vm.expectRevert(abi.encodeWithSelector(ISessionRegistry.SessionUnknown.selector, id));
        registry.getPubkey(id);
    }
}
