// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAnchorRegistry} from "../../src/interfaces/IAnchorRegistry.sol";
import {AnchorTest} from "./AnchorTest.sol";

contract OpenLogTest is AnchorTest {
    function testFuzz_EmitsLogOpened(address caller, bytes32 salt) public {
        vm.assume(caller != owner || salt != SALT);
        bytes32 expected = registry.logIdOf(caller, salt);
        vm.expectEmit(address(registry));
        emit IAnchorRegistry.LogOpened(expected, caller, salt);
        vm.prank(caller);
        vm.assertEq(registry.openLog(salt), expected);
    }

    function test_NobodyTakesAnothersSalt() public {
        vm.prank(stranger);
        bytes32 other = registry.openLog(SALT);
        vm.assertNotEq(other, logId);
        vm.assertEq(registry.anchorerOf(logId), owner);
        vm.assertEq(registry.anchorerOf(other), stranger);
    }

    function test_RevertIf_Open() public {
        vm.prank(owner);
        vm.expectRevert(
            abi.encodeWithSelector(IAnchorRegistry.LogAlreadyOpen.selector, logId, owner)
        );
        registry.openLog(SALT);
    }

    function test_RevertIf_OpenAndAnchored_AndLosesNothing() public {
        anchorAs(owner, 3, "root");
        vm.prank(owner);
        vm.expectRevert(
            abi.encodeWithSelector(IAnchorRegistry.LogAlreadyOpen.selector, logId, owner)
        );
        registry.openLog(SALT);
        assertLatest(logId, 3, "root", NOW);
    }
}
