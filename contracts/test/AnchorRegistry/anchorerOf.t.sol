// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AnchorTest} from "./AnchorTest.sol";

contract AnchorerOfTest is AnchorTest {
    function test_WhoOpened() public view {
        vm.assertEq(registry.anchorerOf(logId), owner);
    }

    function testFuzz_ZeroIfUnknown(bytes32 unknown) public view {
        vm.assume(unknown != logId);
        vm.assertEq(registry.anchorerOf(unknown), address(0));
    }
}
