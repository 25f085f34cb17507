// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {TokenTest} from "./TokenTest.sol";

contract MetadataTest is TokenTest {
    function test_AsWalletsShowIt() public view {
        vm.assertEq(token.name(), "Test USD Coin");
        vm.assertEq(token.symbol(), "USDC");
        vm.assertEq(token.decimals(), 6);
    }

    function test_AsSignersNeedIt() public view {
        (, string memory name, string memory version, uint256 chain, address self,,) =
            token.eip712Domain();
        vm.assertEq(name, token.name());
        vm.assertEq(version, token.version());
        vm.assertEq(version, "2");
        vm.assertEq(chain, block.chainid);
        vm.assertEq(self, address(token));
        vm.assertEq(
            token.DOMAIN_SEPARATOR(),
            keccak256(
                abi.encode(
                    keccak256(
                        "EIP712Domain(string name,string version,"
                        "uint256 chainId,address verifyingContract)"
                    ),
                    keccak256("Test USD Coin"),
                    keccak256("2"),
                    block.chainid,
                    address(token)
                )
            )
        );
    }
}
