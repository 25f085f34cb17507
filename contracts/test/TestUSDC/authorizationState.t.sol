// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {TokenTest} from "./TokenTest.sol";

contract AuthorizationStateTest is TokenTest {
    function testFuzz_OfThisAuthorizerAndNonceOnly(address other, bytes32 nonce) public {
        vm.assume(other != owner && nonce != "nonce");
        cancel(owner, "nonce", OWNER_KEY);
        vm.assertTrue(token.authorizationState(owner, "nonce"));
        vm.assertFalse(token.authorizationState(owner, nonce));
        vm.assertFalse(token.authorizationState(other, "nonce"));
    }
}
