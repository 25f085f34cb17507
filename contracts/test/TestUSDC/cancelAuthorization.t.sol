// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC3009Cancel} from "@openzeppelin/contracts/interfaces/draft-IERC3009.sol";
import {TokenTest} from "./TokenTest.sol";

contract CancelAuthorizationTest is TokenTest {
    function testFuzz_EmitsAuthorizationCanceled(bytes32 nonce) public {
        vm.expectEmit(address(token));
        emit IERC3009Cancel.AuthorizationCanceled(owner, nonce);
        cancel(owner, nonce, OWNER_KEY);
        vm.assertTrue(token.authorizationState(owner, nonce));
    }

    function test_RevertIf_SignedByStranger() public {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(STRANGER_KEY, cancelDigest(owner, "nonce"));
        vm.expectRevert(INVALID_SIGNATURE);
        token.cancelAuthorization(owner, "nonce", v, r, s);
    }

    function test_RevertIf_HighS() public {
        (uint8 v, bytes32 r, bytes32 s) = highS(OWNER_KEY, cancelDigest(owner, "nonce"));
        vm.expectRevert(INVALID_SIGNATURE);
        token.cancelAuthorization(owner, "nonce", v, r, s);
    }

    function test_RevertIf_Canceled() public {
        cancel(owner, "nonce", OWNER_KEY);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(OWNER_KEY, cancelDigest(owner, "nonce"));
        vm.expectRevert(USED);
        token.cancelAuthorization(owner, "nonce", v, r, s);
    }

    function test_RevertIf_Used() public {
        Authorization memory a = typicalAuthorization();
        bytes memory signature = signed(OWNER_KEY, digest("TransferWithAuthorization", a));
        token.transferWithAuthorization(
            a.from, a.to, a.value, a.validAfter, a.validBefore, a.nonce, signature
        );
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(OWNER_KEY, cancelDigest(owner, a.nonce));
        vm.expectRevert(USED);
        token.cancelAuthorization(owner, a.nonce, v, r, s);
    }
}
