// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Grant, ISessionRegistry} from "../../src/interfaces/ISessionRegistry.sol";
import {SessionTest} from "./SessionTest.sol";

contract GetEthAddressTest is SessionTest {
    function test_SessionKey() public {
        Grant memory grant = registerTypical();
        vm.assertEq(registry.getEthAddress(id), grant.sessionKey);
    }

    function testFuzz_RevertIf_Unknown(uint256 unknown) public {
        registerTypical();
        vm.assume(unknown != id);
        vm.expectRevert(abi.encodeWithSelector(ISessionRegistry.SessionUnknown.selector, unknown));
        registry.getEthAddress(unknown);
    }
}
