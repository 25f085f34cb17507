// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SessionRegistry} from "../../src/SessionRegistry.sol";
import {SessionTest} from "./SessionTest.sol";

contract ConstructorTest is SessionTest {
    function testFuzz_NamesAnchorRegistry(address anchors) public {
        vm.assertEq(new SessionRegistry(operator, anchors).anchors(), anchors);
    }

    function test_OperatorAdministers() public view {
        vm.assertTrue(registry.hasRole(registry.DEFAULT_ADMIN_ROLE(), operator));
        vm.assertTrue(registry.hasRole(registry.OPERATOR_ROLE(), operator));
    }

    function test_DeployerHasNoRole() public view {
        vm.assertFalse(registry.hasRole(registry.DEFAULT_ADMIN_ROLE(), address(this)));
        vm.assertFalse(registry.hasRole(registry.OPERATOR_ROLE(), address(this)));
    }
}
