// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Grant, ISessionRegistry} from "../../src/interfaces/ISessionRegistry.sol";
import {SessionTest} from "./SessionTest.sol";

contract GetPubkeyTest is SessionTest {
    function testFuzz_Stored(uint256 privateKey) public {
        publicKey = publicKeyOf(bound(privateKey, 1, ORDER - 1));
        id = registry.tokenId(publicKey);
        Grant memory grant = typicalGrant();
        grant.sessionKey = address(uint160(id));
        vm.prank(operator);
        registry.register(grant, publicKey, "", true);
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
