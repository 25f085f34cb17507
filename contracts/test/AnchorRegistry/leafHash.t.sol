// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AnchorTest} from "./AnchorTest.sol";

contract LeafHashTest is AnchorTest {
    function testFuzz_Sha256WithThePrefixOfALeaf(bytes memory entry) public view {
        vm.assertEq(registry.leafHash(entry), sha256(bytes.concat(bytes1(0x00), entry)));
    }

    /// The first of the test vectors of Certificate Transparency: one empty entry.
    function test_OfAnEmptyEntry() public view {
        vm.assertEq(
            registry.leafHash(""),
            0x6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d
        );
    }
}
