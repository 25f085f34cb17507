// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Workspace} from "../../src/interfaces/ISessionRegistry.sol";
import {SessionTest} from "./SessionTest.sol";

contract WorkspaceTest is SessionTest {
    function test_AllZeroBeforeItsFirstSession() public view {
        vm.assertEq(abi.encode(registry.workspace(ACME)), abi.encode(Workspace(0, false)));
    }

    function test_FromItsFirstSessionOn() public {
        registerTypical();
        vm.assertEq(abi.encode(registry.workspace(ACME)), abi.encode(Workspace(1, false)));
        useKey(2);
        registerTypical();
        vm.assertEq(abi.encode(registry.workspace(ACME)), abi.encode(Workspace(1, false)));
    }

    function testFuzz_AllZeroIfUnknown(bytes32 name) public {
        vm.assume(name != ACME);
        registerTypical();
        vm.assertEq(abi.encode(registry.workspace(name)), new bytes(64));
    }
}
