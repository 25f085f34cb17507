// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {TokenTest} from "./TokenTest.sol";

contract MintTest is TokenTest {
    function testFuzz_ForAnyone(address caller, address to, uint128 value) public {
        vm.assume(to != address(0) && to != owner);
        vm.expectEmit(address(token));
        emit IERC20.Transfer(address(0), to, value);
        vm.prank(caller);
        token.mint(to, value);
        vm.assertEq(token.balanceOf(to), value);
        vm.assertEq(token.totalSupply(), BALANCE + value);
    }
}
