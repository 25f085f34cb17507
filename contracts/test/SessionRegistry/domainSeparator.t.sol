// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SessionTest} from "./SessionTest.sol";

contract DomainSeparatorTest is SessionTest {
    function testFuzz_NamesChainAndRegistry(uint64 chain) public {
        chain = uint64(bound(chain, 1, type(uint64).max - 1));
        vm.chainId(chain);
        vm.assertEq(
            registry.DOMAIN_SEPARATOR(),
            keccak256(
                abi.encode(
                    keccak256(
                        "EIP712Domain(string name,string version,"
                        "uint256 chainId,address verifyingContract)"
                    ),
                    keccak256("Tallystick"),
                    keccak256("1"),
                    chain,
                    address(registry)
                )
            )
        );
    }
}
