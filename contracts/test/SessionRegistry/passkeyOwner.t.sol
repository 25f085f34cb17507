// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SessionTest} from "./SessionTest.sol";

contract PasskeyOwnerTest is SessionTest {
    function testFuzz_LowBitsOfATaggedHash(bytes32 x, bytes32 y) public view {
        vm.assertEq(
            registry.passkeyOwner(x, y),
            address(uint160(uint256(keccak256(bytes.concat("Tallystick passkey", x, y)))))
        );
    }

    /// The same coordinates as an Ethereum key would have another address.
    function testFuzz_IsNoEthereumAddress(bytes32 x, bytes32 y) public view {
        vm.assertFalse(
            registry.passkeyOwner(x, y)
                == address(uint160(uint256(keccak256(abi.encodePacked(x, y)))))
        );
    }
}
