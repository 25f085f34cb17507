// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AnchorTest} from "./AnchorTest.sol";

contract LatestTest is AnchorTest {
    function test_AllZeroBeforeTheFirst() public view {
        assertLatest(logId, 0, 0, 0);
    }

    function testFuzz_AllZeroIfUnknown(bytes32 unknown) public {
        vm.assume(unknown != logId);
        anchorAs(owner, 1, "root");
        assertLatest(unknown, 0, 0, 0);
    }

    function test_Newest() public {
        anchorAs(owner, 1, "one");
        vm.warp(NOW + 60);
        anchorAs(owner, type(uint64).max, "all");
        assertLatest(logId, type(uint64).max, "all", NOW + 60);
    }
}
