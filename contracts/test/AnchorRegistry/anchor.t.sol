// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {IAnchorRegistry} from "../../src/interfaces/IAnchorRegistry.sol";
import {AnchorTest} from "./AnchorTest.sol";

contract AnchorFunctionTest is AnchorTest {
    function testFuzz_EmitsAnchored(uint64 size, bytes32 root) public {
        size = uint64(bound(size, 1, type(uint64).max));
        vm.expectEmit(address(registry));
        emit IAnchorRegistry.Anchored(logId, size, root);
        anchorAs(owner, size, root);
    }

    function testFuzz_StoresTheLatest(uint64 first, uint64 second, bytes32 root, uint32 time)
        public
    {
        first = uint64(bound(first, 1, type(uint64).max - 1));
        second = uint64(bound(second, first + 1, type(uint64).max));
        anchorAs(owner, first, "first");
        assertLatest(logId, first, "first", NOW);
        vm.warp(time);
        anchorAs(owner, second, root);
        assertLatest(logId, second, root, time);
        vm.assertEq(registry.anchorerOf(logId), owner);
    }

    function test_LogsAreIndependent() public {
        vm.prank(stranger);
        bytes32 other = registry.openLog(SALT);
        anchorAs(owner, 5, "mine");
        vm.prank(stranger);
        registry.anchor(other, 2, "theirs");
        assertLatest(logId, 5, "mine", NOW);
        assertLatest(other, 2, "theirs", NOW);
    }

    function testFuzz_RevertIf_NotGrowing(uint64 latest, uint64 size) public {
        latest = uint64(bound(latest, 1, type(uint64).max));
        size = uint64(bound(size, 0, latest));
        anchorAs(owner, latest, "root");
        vm.expectRevert(
            abi.encodeWithSelector(IAnchorRegistry.SizeNotGrowing.selector, logId, size, latest)
        );
        anchorAs(owner, size, "other");
        assertLatest(logId, latest, "root", NOW);
    }

    function test_RevertIf_SameSize() public {
        testFuzz_RevertIf_NotGrowing(7, 7);
    }

    function test_RevertIf_Empty() public {
        vm.expectRevert(
            abi.encodeWithSelector(IAnchorRegistry.SizeNotGrowing.selector, logId, 0, 0)
        );
        anchorAs(owner, 0, "root");
    }

    function testFuzz_RevertIf_NotAnchorer(address caller, uint64 size) public {
        vm.assume(caller != owner);
        vm.expectRevert(
            abi.encodeWithSelector(IAnchorRegistry.NotAnchorer.selector, logId, caller, owner)
        );
        anchorAs(caller, size, "root");
    }

    function testFuzz_RevertIf_Unknown(bytes32 unknown) public {
        vm.assume(unknown != logId);
        vm.expectRevert(
            abi.encodeWithSelector(IAnchorRegistry.NotAnchorer.selector, unknown, owner, address(0))
        );
        vm.prank(owner);
        registry.anchor(unknown, 1, "root");
    }

    function test_RevertIf_TimeExceeds32Bits() public {
        uint256 late = uint256(type(uint32).max) + 1;
        vm.warp(late);
        vm.expectRevert(
            abi.encodeWithSelector(SafeCast.SafeCastOverflowedUintDowncast.selector, 32, late)
        );
        anchorAs(owner, 1, "root");
    }
}
