// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AnchorTest} from "./AnchorTest.sol";

contract LogIdOfTest is AnchorTest {
    function testFuzz_HashOfAnchorerAndSalt(address anchorer, bytes32 salt) public view {
        vm.assertEq(
            registry.logIdOf(anchorer, salt),
            keccak256(abi.encodePacked(uint256(uint160(anchorer)), salt))
        );
    }

    function test_OfTheOpenedLog() public view {
        vm.assertEq(registry.logIdOf(owner, SALT), logId);
    }
}
