// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Grant} from "../../src/interfaces/ISessionRegistry.sol";
import {SessionTest} from "./SessionTest.sol";

contract ExistsTest is SessionTest {
    function test_FromRegistrationOn_AlsoAfterRevocation() public {
        vm.assertFalse(registry.exists(id));
        Grant memory grant = registerTypical();
        vm.assertTrue(registry.exists(id));
        revokeAs(owner, grant);
        vm.assertTrue(registry.exists(id));
        vm.warp(UNTIL);
        vm.assertTrue(registry.exists(id));
    }

    function testFuzz_FalseIfUnknown(uint256 unknown) public {
        registerTypical();
        vm.assume(unknown != id);
        vm.assertFalse(registry.exists(unknown));
    }
}
